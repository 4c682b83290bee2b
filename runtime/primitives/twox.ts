/**
 * xxHash64, the hash behind Substrate's `twox` hashers (xxHash fast digest algorithm, specification 0.1.1, XXH64).
 * The 64-bit arithmetic runs on pairs of 32-bit halves: storage keys are hashed with it all the time, and bigint
 * would cost ten times as much.
 */

const P1_HI = 0x9e3779b1;
const P1_LO = 0x85ebca87;
const P2_HI = 0xc2b2ae3d;
const P2_LO = 0x27d4eb4f;
const P3_HI = 0x165667b1;
const P3_LO = 0x9e3779f9;
const P4_HI = 0x85ebca77;
const P4_LO = 0xc2b2ae63;
const P5_HI = 0x27d4eb2f;
const P5_LO = 0x165667c5;

/** Upper half of a product of two 32-bit numbers. */
function mulHigh(a: number, b: number): number {
  const a0 = a & 0xffff;
  const a1 = a >>> 16;
  const b0 = b & 0xffff;
  const b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  return a1 * b1 + (middle >>> 16) + ((a0 * b1 + (middle & 0xffff)) >>> 16);
}

const readU32 = (data: Uint8Array, at: number): number =>
  data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);

function writeU32(out: Uint8Array, at: number, value: number): void {
  out[at] = value;
  out[at + 1] = value >>> 8;
  out[at + 2] = value >>> 16;
  out[at + 3] = value >>> 24;
}

/** One 64-bit word in two halves. The operations change it in place. */
class Word {
  hi = 0;
  lo = 0;

  set(hi: number, lo: number): void {
    this.hi = hi | 0;
    this.lo = lo | 0;
  }

  add(hi: number, lo: number): void {
    const sum = (this.lo + lo) | 0;
    const carry = sum >>> 0 < lo >>> 0 ? 1 : 0;
    this.hi = (this.hi + hi + carry) | 0;
    this.lo = sum;
  }

  xor(hi: number, lo: number): void {
    this.hi ^= hi;
    this.lo ^= lo;
  }

  multiply(hi: number, lo: number): void {
    const { hi: ownHi, lo: ownLo } = this;
    this.hi = (mulHigh(ownLo, lo) + Math.imul(ownHi, lo) + Math.imul(ownLo, hi)) | 0;
    this.lo = Math.imul(ownLo, lo);
  }

  /** `bits` between 1 and 31. */
  rotateLeft(bits: number): void {
    const { hi, lo } = this;
    this.hi = (hi << bits) | (lo >>> (32 - bits));
    this.lo = (lo << bits) | (hi >>> (32 - bits));
  }

  /** `bits` between 1 and 31. */
  xorShiftRight(bits: number): void {
    const { hi, lo } = this;
    this.lo ^= (lo >>> bits) | (hi << (32 - bits));
    this.hi ^= hi >>> bits;
  }

  /** `bits` between 32 and 63. */
  xorShiftRightFar(bits: number): void {
    this.lo ^= this.hi >>> (bits - 32);
  }

  /** The round of an accumulator with one word of input. */
  round(data: Uint8Array, at: number): void {
    scratch.set(readU32(data, at + 4), readU32(data, at));
    scratch.multiply(P2_HI, P2_LO);
    this.add(scratch.hi, scratch.lo);
    this.rotateLeft(31);
    this.multiply(P1_HI, P1_LO);
  }
}

/** Working memory; nothing in it outlives a call. */
const scratch = new Word();
const hash = new Word();
const lanes = [new Word(), new Word(), new Word(), new Word()] as const;

/** Hashes all 32-byte stripes into `hash`; returns how far it came. */
function stripes(data: Uint8Array, seed: number): number {
  const [v1, v2, v3, v4] = lanes;
  v1.set(P1_HI, P1_LO);
  v1.add(P2_HI, P2_LO);
  v1.add(0, seed);
  v2.set(P2_HI, P2_LO);
  v2.add(0, seed);
  v3.set(0, seed);
  v4.set(0, seed);
  v4.add(~P1_HI, -P1_LO);
  let at = 0;
  for (const last = data.length - 32; at <= last; at += 32) {
    v1.round(data, at);
    v2.round(data, at + 8);
    v3.round(data, at + 16);
    v4.round(data, at + 24);
  }
  hash.set(0, 0);
  for (const [lane, bits] of [
    [v1, 1],
    [v2, 7],
    [v3, 12],
    [v4, 18],
  ] as const) {
    scratch.set(lane.hi, lane.lo);
    scratch.rotateLeft(bits);
    hash.add(scratch.hi, scratch.lo);
  }
  for (const lane of lanes) {
    scratch.set(lane.hi, lane.lo);
    scratch.multiply(P2_HI, P2_LO);
    scratch.rotateLeft(31);
    scratch.multiply(P1_HI, P1_LO);
    hash.xor(scratch.hi, scratch.lo);
    hash.multiply(P1_HI, P1_LO);
    hash.add(P4_HI, P4_LO);
  }
  return at;
}

/** Writes the little-endian XXH64 of `data` with a small seed to `out[at .. at + 8]`. */
export function xxh64(data: Uint8Array, seed: number, out: Uint8Array, outAt: number): void {
  const { length } = data;
  let at = 0;
  if (length >= 32) {
    at = stripes(data, seed);
  } else {
    hash.set(P5_HI, P5_LO);
    hash.add(0, seed);
  }
  hash.add(0, length);
  for (; at + 8 <= length; at += 8) {
    scratch.set(readU32(data, at + 4), readU32(data, at));
    scratch.multiply(P2_HI, P2_LO);
    scratch.rotateLeft(31);
    scratch.multiply(P1_HI, P1_LO);
    hash.xor(scratch.hi, scratch.lo);
    hash.rotateLeft(27);
    hash.multiply(P1_HI, P1_LO);
    hash.add(P4_HI, P4_LO);
  }
  if (at + 4 <= length) {
    scratch.set(0, readU32(data, at));
    scratch.multiply(P1_HI, P1_LO);
    hash.xor(scratch.hi, scratch.lo);
    hash.rotateLeft(23);
    hash.multiply(P2_HI, P2_LO);
    hash.add(P3_HI, P3_LO);
    at += 4;
  }
  for (; at < length; at++) {
    scratch.set(0, data[at]!);
    scratch.multiply(P5_HI, P5_LO);
    hash.xor(scratch.hi, scratch.lo);
    hash.rotateLeft(11);
    hash.multiply(P1_HI, P1_LO);
  }
  hash.xorShiftRightFar(33);
  hash.multiply(P2_HI, P2_LO);
  hash.xorShiftRight(29);
  hash.multiply(P3_HI, P3_LO);
  hash.xorShiftRightFar(32);
  writeU32(out, outAt, hash.lo);
  writeU32(out, outAt + 4, hash.hi);
}

/** `bits / 64` words of XXH64 with the seeds 0, 1, …, one after the other. */
export function twox(data: Uint8Array, bits: 64 | 128 | 256): Uint8Array {
  const out = new Uint8Array(bits / 8);
  for (let seed = 0; seed < bits / 64; seed++) xxh64(data, seed, out, seed * 8);
  return out;
}
