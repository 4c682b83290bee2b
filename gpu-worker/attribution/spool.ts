/** Vectors of one length kept in the order they come: in memory up to a bound, beyond it in a scratch file. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export class SpoolError extends Error {
  readonly code: 'WRONG_SIZE' | 'SHORT_READ';
  constructor(code: SpoolError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export class VectorSpool implements Disposable {
  readonly size: number;
  readonly #memory: Float32Array[] = [];
  readonly #inMemory: number;
  readonly #directory: string;
  #scratch: { readonly folder: string; readonly file: number } | undefined;
  #count = 0;

  /** At most about `memoryBytes` are kept in memory. */
  constructor(size: number, memoryBytes = 256 * 2 ** 20, directory = tmpdir()) {
    this.size = size;
    this.#inMemory = Math.floor(memoryBytes / Math.max(1, size * 4));
    this.#directory = directory;
  }

  get length(): number {
    return this.#count;
  }

  append(vector: Float32Array): void {
    if (vector.length !== this.size) {
      throw new SpoolError('WRONG_SIZE', `${vector.length} entries where ${this.size} belong`);
    }
    if (this.#count < this.#inMemory) this.#memory.push(vector.slice());
    else {
      this.#scratch ??= this.#open();
      const bytes = new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
      const from = (this.#count - this.#inMemory) * bytes.length;
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#scratch.file, bytes, done, bytes.length - done, from + done);
      }
    }
    this.#count++;
  }

  /** Vector `index`; the caller must not write to it. */
  at(index: number): Float32Array {
    if (index < this.#inMemory) return this.#memory[index]!;
    const vector = new Float32Array(this.size);
    const bytes = new Uint8Array(vector.buffer);
    const from = (index - this.#inMemory) * bytes.length;
    for (let done = 0; done < bytes.length; ) {
      const read = readSync(this.#scratch!.file, bytes, done, bytes.length - done, from + done);
      if (read === 0) throw new SpoolError('SHORT_READ', 'the scratch file is shorter than what was written to it');
      done += read;
    }
    return vector;
  }

  #open() {
    const folder = mkdtempSync(join(this.#directory, 'spool-'));
    return { folder, file: openSync(join(folder, 'vectors.f32'), 'w+', 0o600) };
  }

  close(): void {
    this.#memory.length = 0;
    this.#count = 0;
    if (this.#scratch === undefined) return;
    closeSync(this.#scratch.file);
    rmSync(this.#scratch.folder, { recursive: true, force: true });
    this.#scratch = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
