/** The key that names this node to others: 32 bytes of ed25519 seed in a file, as hexadecimal digits (Substrate's format). */
import { open, readFile } from 'node:fs/promises';
import { randomBytes } from '@libp2p/crypto';
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import type { PrivateKey } from '@libp2p/interface';
import { fromHex, fromUtf8, toHex } from '../../runtime/primitives/bytes.ts';
import { NetworkError } from './errors.ts';

const seedKey = (seed: Uint8Array): Promise<PrivateKey> => generateKeyPairFromSeed('Ed25519', seed);

/** Undefined: a key for this run only. Throws {@link NetworkError} `BAD_KEY_FILE`. */
export async function loadIdentity(file: string | undefined): Promise<PrivateKey> {
  if (file === undefined) return seedKey(randomBytes(32));
  let content: Uint8Array | undefined;
  try {
    content = await readFile(file);
  } catch (problem) {
    if ((problem as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new NetworkError('BAD_KEY_FILE', `the node key ${file} cannot be read`, { cause: problem });
    }
  }
  if (content !== undefined) return seedKey(parseSeed(content, file));
  const seed = randomBytes(32);
  try {
    // `wx`: two nodes that start at once must not overwrite each other's.
    const handle = await open(file, 'wx', 0o600);
    try {
      await handle.writeFile(toHex(seed).slice(2));
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (problem) {
    throw new NetworkError('BAD_KEY_FILE', `the node key ${file} cannot be written`, { cause: problem });
  }
  return seedKey(seed);
}

function parseSeed(content: Uint8Array, file: string): Uint8Array {
  if (content.length === 32) return content;
  try {
    const text = fromUtf8(content).trim();
    const seed = fromHex(text.startsWith('0x') ? text : `0x${text}`);
    if (seed.length === 32) return seed;
  } catch {
    // Said below, without showing what the file holds.
  }
  throw new NetworkError('BAD_KEY_FILE', `the node key ${file} must hold 32 bytes, raw or as hexadecimal digits`);
}
