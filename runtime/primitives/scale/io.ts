/** Reading and writing of SCALE bytes (Polkadot specification, appendix A.2.2). */

export type ScaleErrorCode =
  | 'UNEXPECTED_END'
  | 'TRAILING_BYTES'
  | 'INVALID_BOOL'
  | 'INVALID_OPTION'
  | 'INVALID_VARIANT'
  | 'INVALID_UTF8'
  | 'NON_CANONICAL'
  | 'OUT_OF_RANGE'
  | 'TOO_LONG'
  | 'TOO_DEEP';

export class ScaleError extends Error {
  readonly code: ScaleErrorCode;
  constructor(code: ScaleErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * Levels of recursive types that a decoder follows. Substrate follows 256; JavaScript engines differ in how deep a stack
 * they have, and a node that gives up where another goes on would fork off. 32 levels fit into a quarter of V8's
 * default stack and into the interpreters of light clients.
 */
export const MAX_DEPTH = 32;
/** Values of recursive types in one input, on all levels together: the calls that an extrinsic may hold. */
export const MAX_NESTED = 4_096;

/** Eight bytes to turn 64-bit integers over in: a view of its own for every sink and source costs more than all else they do. */
const word = new Uint8Array(new ArrayBuffer(8));
const wordView = new DataView(word.buffer);

/** Buffers of sinks that are done. Nearly every value is short, and a fresh buffer costs more than writing it. */
const spares: Uint8Array[] = [];
const SPARE_LENGTH = 1_024;
const MAX_SPARES = 16;
const NOTHING = new Uint8Array(0);

/** A growing byte buffer that encoders write to. */
export class Sink {
  #bytes: Uint8Array;
  #length = 0;

  constructor(capacity = 128) {
    this.#bytes =
      capacity > SPARE_LENGTH
        ? new Uint8Array(capacity)
        : (spares.pop() ?? new Uint8Array(new ArrayBuffer(SPARE_LENGTH)));
  }

  get length(): number {
    return this.#length;
  }

  #reserve(count: number): number {
    const at = this.#length;
    const needed = at + count;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2, 128));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
    }
    this.#length = needed;
    return at;
  }

  u8(value: number): void {
    const at = this.#reserve(1);
    this.#bytes[at] = value;
  }

  u16(value: number): void {
    const at = this.#reserve(2);
    this.#bytes[at] = value;
    this.#bytes[at + 1] = value >> 8;
  }

  u32(value: number): void {
    const at = this.#reserve(4);
    const bytes = this.#bytes;
    bytes[at] = value;
    bytes[at + 1] = value >> 8;
    bytes[at + 2] = value >> 16;
    bytes[at + 3] = value >> 24;
  }

  u64(value: bigint): void {
    const at = this.#reserve(8);
    wordView.setBigUint64(0, value, true);
    const bytes = this.#bytes;
    for (let i = 0; i < 8; i++) bytes[at + i] = word[i]!;
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** Compact integer, `0 <= value < 2^53`. */
  compact(value: number): void {
    if (value < 0x40) this.u8(value << 2);
    else if (value < 0x4000) this.u16((value << 2) | 1);
    else if (value < 0x40000000) this.u32(((value << 2) | 2) >>> 0);
    else this.compactBig(BigInt(value));
  }

  /** Compact integer of up to 67 bytes. */
  compactBig(value: bigint): void {
    if (value < 0x40000000n) {
      this.compact(Number(value));
      return;
    }
    let count = 4;
    for (let rest = value >> 32n; rest > 0n; rest >>= 8n) count++;
    this.u8(((count - 4) << 2) | 3);
    for (let i = 0, rest = value; i < count; i++, rest >>= 8n) this.u8(Number(rest & 0xffn));
  }

  /** The bytes written so far, copied out. The sink is empty afterwards. */
  finish(): Uint8Array {
    return this.drain((bytes) => bytes.slice());
  }

  /** What `use` makes of the bytes written so far, which are its own only until it returns. The sink is empty afterwards. */
  drain<T>(use: (bytes: Uint8Array) => T): T {
    const bytes = this.#bytes;
    const made = use(bytes.subarray(0, this.#length));
    if (bytes.length === SPARE_LENGTH && spares.length < MAX_SPARES) spares.push(bytes);
    this.#bytes = NOTHING;
    this.#length = 0;
    return made;
  }
}

/** A cursor over bytes that decoders read from. It never reads past the end and copies nothing. */
export class Source {
  readonly #bytes: Uint8Array;
  #offset: number;
  readonly #maxItems: number;
  #depth = 0;
  #nested = 0;
  #items = 0;

  /** `maxItems`: how many items all lists may hold together. */
  constructor(bytes: Uint8Array, offset = 0, maxItems = Number.POSITIVE_INFINITY) {
    this.#bytes = bytes;
    this.#offset = offset;
    this.#maxItems = maxItems;
  }

  /** Values of recursive types decoded so far. */
  get nestedValues(): number {
    return this.#nested;
  }

  /** Items of lists announced so far. */
  get items(): number {
    return this.#items;
  }

  /** Counts the items of a list before any of them is decoded. */
  takeItems(count: number): void {
    this.#items += count;
    if (this.#items > this.#maxItems) {
      throw new ScaleError('TOO_LONG', `more than ${this.#maxItems} items in all lists`);
    }
  }

  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  #take(count: number): number {
    const at = this.#offset;
    if (count > this.#bytes.length - at) {
      throw new ScaleError('UNEXPECTED_END', `${count} bytes wanted at offset ${at}, ${this.remaining} left`);
    }
    this.#offset = at + count;
    return at;
  }

  peek(): number | undefined {
    return this.#bytes[this.#offset];
  }

  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  u16(): number {
    const at = this.#take(2);
    return this.#bytes[at]! | (this.#bytes[at + 1]! << 8);
  }

  u32(): number {
    const at = this.#take(4);
    const bytes = this.#bytes;
    return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
  }

  u64(): bigint {
    const at = this.#take(8);
    for (let i = 0; i < 8; i++) word[i] = this.#bytes[at + i]!;
    return wordView.getBigUint64(0, true);
  }

  /** A view, not a copy. */
  bytes(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  /** The bytes between an earlier offset and here, as a view. */
  since(offset: number): Uint8Array {
    return this.#bytes.subarray(offset, this.#offset);
  }

  /** Compact integer in its shortest form, at most `max` (a safe integer). */
  compact(max: number): number {
    const first = this.u8();
    let value: number;
    switch (first & 3) {
      case 0:
        value = first >> 2;
        break;
      case 1:
        value = (first >> 2) | (this.u8() << 6);
        if (value < 0x40) throw nonCanonical();
        break;
      case 2: {
        const low = (first >> 2) | (this.u8() << 6);
        value = low + this.u16() * 0x4000;
        if (value < 0x4000) throw nonCanonical();
        break;
      }
      default: {
        const big = this.#bigMode(first >> 2);
        if (big > BigInt(max)) throw outOfRange(big, max);
        return Number(big);
      }
    }
    if (value > max) throw outOfRange(value, max);
    return value;
  }

  /** Compact integer in its shortest form, at most `max`. */
  compactBig(max: bigint): bigint {
    const first = this.peek();
    const value =
      first !== undefined && (first & 3) === 3 ? this.#bigMode(this.u8() >> 2) : BigInt(this.compact(0x3fffffff));
    if (value > max) throw outOfRange(value, max);
    return value;
  }

  #bigMode(extra: number): bigint {
    const bytes = this.bytes(extra + 4);
    let value = 0n;
    for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
    if (bytes[bytes.length - 1] === 0 || value < 0x40000000n) throw nonCanonical();
    return value;
  }

  /** Runs `read` one level deeper; a type that nests without end is an error, not a stack overflow. */
  nested<T>(read: () => T): T {
    if (this.#depth >= MAX_DEPTH) throw new ScaleError('TOO_DEEP', `values nested more than ${MAX_DEPTH} levels deep`);
    if (this.#nested >= MAX_NESTED) throw new ScaleError('TOO_LONG', `more than ${MAX_NESTED} nested values`);
    this.#depth++;
    this.#nested++;
    try {
      return read();
    } finally {
      this.#depth--;
    }
  }
}

const nonCanonical = () => new ScaleError('NON_CANONICAL', 'compact integer is not in its shortest form');
const outOfRange = (value: number | bigint, max: number | bigint) =>
  new ScaleError('OUT_OF_RANGE', `${value} is larger than ${max}`);
