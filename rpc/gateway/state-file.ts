/** A purse's memory in a file: whole or not at all, readable by its owner alone. */
import { open, readFile, rename } from 'node:fs/promises';
import type { PurseStore } from '../client/purse.ts';

export const stateFile = (path: string): PurseStore => ({
  async read() {
    try {
      return await readFile(path, 'utf8');
    } catch (problem) {
      if ((problem as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw problem;
    }
  },
  async write(text) {
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
  },
});
