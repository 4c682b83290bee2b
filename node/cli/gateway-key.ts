/**
 * The gateway's API key: made once, kept where only its owner reads it, and found there by the commands of the same user. A web
 * page cannot read files, nor can other users.
 */
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { isLoopback } from '../../rpc/server/access.ts';

const FILE = 'api-key';
/** Keys of the gateways that run on this machine, by their ports. */
const running = (): string => join(homedir(), '.openledger', 'gateway', 'running');

async function keep(directory: string, name: string, text: string): Promise<string> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, name);
  await writeFile(path, `${text}\n`, { mode: 0o600 });
  // The mode above counts for new files only.
  await chmod(path, 0o600);
  return path;
}

async function read(path: string): Promise<string | undefined> {
  try {
    const text = (await readFile(path, 'utf8')).trim();
    return text === '' ? undefined : text;
  } catch {
    return undefined;
  }
}

/** The key kept in a gateway's directory, made if there is none. */
export async function ownKey(directory: string): Promise<{ readonly key: string; readonly path: string }> {
  const path = join(directory, FILE);
  const known = await read(path);
  if (known !== undefined) {
    await chmod(path, 0o600);
    return { key: known, path };
  }
  const key = `sk-openledger-${randomBytes(24).toString('base64url')}`;
  return { key, path: await keep(directory, FILE, key) };
}

/** Lets commands of this user find the key of a gateway that runs. Returns how to take it back. */
export async function publishKey(url: string, key: string): Promise<() => Promise<void>> {
  const name = new URL(url).port;
  const path = await keep(running(), name, key);
  return async () => {
    if ((await read(path)) === key) await rm(path, { force: true });
  };
}

/** The key of a gateway at an address: the one that is told, `OPENLEDGER_API_KEY`, or that of one on this machine. */
export async function keyFor(url: string, told?: string): Promise<string | undefined> {
  const given = told ?? process.env.OPENLEDGER_API_KEY;
  if (given !== undefined) return given;
  if (!URL.canParse(url)) return undefined;
  const { hostname, port } = new URL(url);
  return isLoopback(hostname) && port !== '' ? read(join(running(), port)) : undefined;
}
