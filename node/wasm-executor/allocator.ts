/**
 * The host's allocator inside a runtime's memory: powers of two with a list of free places each, as Substrate's
 * (`sp_allocator::FreeingBumpHeapAllocator`; Polkadot specification, appendix B.1.3).
 */

const LEAST = 8;
/** Largest order: 32 MiB. */
const ORDERS = 23;
const HEADER = 8;
const PAGE = 65_536;
const OCCUPIED = 0x1_0000_0000n;

export class AllocationError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'AllocationError';
  }
}

export class FreeingBumpAllocator {
  readonly #memory: WebAssembly.Memory;
  readonly #maxPages: number;
  readonly #free: (number | undefined)[] = new Array(ORDERS).fill(undefined);
  #top: number;

  /** `heapBase`: the runtime's `__heap_base`. `maxPages`: what the memory may grow to, in pages of 64 KiB. */
  constructor(memory: WebAssembly.Memory, heapBase: number, maxPages: number) {
    this.#memory = memory;
    this.#maxPages = maxPages;
    this.#top = Math.ceil(heapBase / 8) * 8;
  }

  /** Address of `size` bytes. Throws {@link AllocationError} where the memory may not grow any more. */
  allocate(size: number): number {
    const order = size <= LEAST ? 0 : 32 - Math.clz32((size - 1) >>> 3);
    if (order >= ORDERS) throw new AllocationError(`${size} bytes at once`);
    const reused = this.#free[order];
    let at: number;
    if (reused !== undefined) {
      at = reused;
      const next = this.#view().getUint32(at, true);
      this.#free[order] = next === 0xffff_ffff ? undefined : next;
    } else at = this.#bump((LEAST << order) + HEADER);
    this.#view().setBigUint64(at, OCCUPIED | BigInt(order), true);
    return at + HEADER;
  }

  /** Throws {@link AllocationError} for an address that was not given, or was given back. */
  release(pointer: number): void {
    const at = pointer - HEADER;
    const view = this.#view();
    const header = at < 0 || at + HEADER > view.byteLength ? 0n : view.getBigUint64(at, true);
    const order = Number(header & 0xffff_ffffn);
    if (header >> 32n !== 1n || order >= ORDERS) throw new AllocationError(`nothing was allocated at ${pointer}`);
    view.setBigUint64(at, BigInt(this.#free[order] ?? 0xffff_ffff), true);
    this.#free[order] = at;
  }

  #bump(size: number): number {
    const at = this.#top;
    const end = at + size;
    const have = this.#memory.buffer.byteLength;
    if (end > have) {
      const wanted = Math.ceil((end - have) / PAGE);
      const room = this.#maxPages - have / PAGE;
      if (wanted > room) throw new AllocationError('the runtime uses more memory than it may');
      // Twice as much each time, so that growing stays rare.
      this.#memory.grow(Math.min(room, Math.max(wanted, have / PAGE)));
    }
    this.#top = end;
    return at;
  }

  #view(): DataView {
    return new DataView(this.#memory.buffer);
  }
}
