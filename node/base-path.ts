/** Where a node keeps things: its directory, its keys, what consensus must not forget. */
import { mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Hashing } from '../runtime/host.ts';
import { utf8 } from '../runtime/primitives/bytes.ts';
import { COLUMN, type Database, DatabaseError } from './database/database.ts';
import { FileKeystore } from './keystore/files.ts';
import { MemoryKeystore } from './keystore/memory.ts';
import type { NodeOptions } from './options.ts';
import type { Keystore } from './ports/chain.ts';
import type { Journal } from './ports/machine.ts';

/** A keystore as this node opens it. */
export interface OwnKeystore extends Keystore {
  hold(keyType: string, secretUri: string): void;
  refresh?(): void;
  close?(): void;
}

export function journalIn(database: Database): Journal {
  return {
    get: async (key) => database.get(COLUMN.consensus, utf8(key)),
    async put(key, value) {
      const batch = database.batch();
      batch.put(COLUMN.consensus, utf8(key), value);
      await batch.commit({ sync: true });
    },
  };
}

/** Throws {@link DatabaseError}. */
export async function directoryOf({ basePath, spec }: NodeOptions): Promise<string> {
  try {
    if (basePath === undefined) return await mkdtemp(join(tmpdir(), 'openledger-'));
    const directory = join(basePath, 'chains', spec.id);
    await mkdir(directory, { recursive: true });
    return directory;
  } catch (problem) {
    throw new DatabaseError('NOT_WRITABLE', `the base path ${basePath} cannot be written to`, { cause: problem });
  }
}

export function keystoreOf(
  { basePath, keystorePassword }: NodeOptions,
  directory: string,
  hashing: Hashing,
): OwnKeystore {
  if (basePath === undefined || keystorePassword === undefined) return new MemoryKeystore(hashing);
  return new FileKeystore({ directory: join(directory, 'keystore'), password: keystorePassword, hashing });
}
