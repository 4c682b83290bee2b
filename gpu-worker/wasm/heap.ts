/** Memory of one model: blocks of 32-bit floats in a WebAssembly memory, which grows as needed (4 GiB at most). */
import { EngineError } from '../engines/engine-error.ts';

const PAGE = 65_536;
/** Behind the last block, since kernels read whole vectors. */
const SLACK = 64;

export class Heap {
  readonly memory = new WebAssembly.Memory({ initial: 1, maximum: PAGE });
  /** Free ranges, ascending, never adjacent. */
  #free: { at: number; size: number }[] = [{ at: 16, size: PAGE - 16 - SLACK }];
  readonly #taken = new Map<number, number>();
  #floats = new Float32Array(this.memory.buffer);
  #bytes = 0;
  readonly #limit: number;

  constructor(limit = PAGE * PAGE) {
    this.#limit = limit;
  }

  /** Bytes in blocks. */
  get used(): number {
    return this.#bytes;
  }

  /** All of the memory. Growth detaches it: take it anew after an `alloc`. */
  get floats(): Float32Array<ArrayBuffer> {
    if (this.#floats.buffer !== this.memory.buffer) this.#floats = new Float32Array(this.memory.buffer);
    return this.#floats;
  }

  view(at: number, count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.memory.buffer, at, count);
  }

  /** Address of `count` floats, 16-aligned, of any content. Throws `OUT_OF_MEMORY`. */
  alloc(count: number): number {
    const size = Math.max(16, Math.ceil(count / 4) * 16);
    let index = this.#free.findIndex((range) => range.size >= size);
    if (index < 0) {
      this.#grow(size);
      index = this.#free.length - 1;
    }
    const range = this.#free[index]!;
    const { at } = range;
    if (range.size === size) this.#free.splice(index, 1);
    else {
      range.at += size;
      range.size -= size;
    }
    this.#taken.set(at, size);
    this.#bytes += size;
    return at;
  }

  zeros(count: number): number {
    const at = this.alloc(count);
    this.view(at, count).fill(0);
    return at;
  }

  free(at: number): void {
    const size = this.#taken.get(at);
    if (size === undefined) throw new Error(`no block at ${at}`);
    this.#taken.delete(at);
    this.#bytes -= size;
    this.#release(at, size);
  }

  /** Blocks that are freed together. */
  scope(): Scope {
    return new Scope(this);
  }

  #release(at: number, size: number): void {
    const free = this.#free;
    let low = 0;
    let high = free.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (free[middle]!.at < at) low = middle + 1;
      else high = middle;
    }
    free.splice(low, 0, { at, size });
    const next = free[low + 1];
    if (next !== undefined && at + size === next.at) {
      free[low]!.size += next.size;
      free.splice(low + 1, 1);
    }
    const before = free[low - 1];
    if (before !== undefined && before.at + before.size === at) {
      before.size += free[low]!.size;
      free.splice(low, 1);
    }
  }

  #grow(size: number): void {
    const end = this.memory.buffer.byteLength - SLACK;
    const last = this.#free.at(-1);
    const missing = size - (last !== undefined && last.at + last.size === end ? last.size : 0);
    // In steps, since every growth makes all views anew.
    const pages = Math.ceil(Math.max(missing, Math.min(this.memory.buffer.byteLength / 4, 1 << 26)) / PAGE);
    try {
      if (this.memory.buffer.byteLength + pages * PAGE > this.#limit) throw new RangeError('limit of the heap');
      this.memory.grow(pages);
    } catch (cause) {
      throw new EngineError('OUT_OF_MEMORY', `no room for ${size} bytes more`, { cause });
    }
    this.#release(end, pages * PAGE);
  }
}

export class Scope {
  readonly #heap: Heap;
  #blocks: number[] = [];

  constructor(heap: Heap) {
    this.#heap = heap;
  }

  alloc(count: number): number {
    const at = this.#heap.alloc(count);
    this.#blocks.push(at);
    return at;
  }

  zeros(count: number): number {
    const at = this.#heap.zeros(count);
    this.#blocks.push(at);
    return at;
  }

  close(): void {
    for (const at of this.#blocks) this.#heap.free(at);
    this.#blocks = [];
  }
}
