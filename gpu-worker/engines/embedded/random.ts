/** Seeded numbers in integer arithmetic (Blackman & Vigna: xoshiro128**, seeded by SplitMix64), the same everywhere. */
import { splitMix64 } from '../../attribution/seeded.ts';

export interface Random {
  /** 32 bits. */
  next(): number;
  /** [0, 1) in steps of 2⁻²⁴, which float32 holds exactly. */
  unit(): number;
  /** Below `n` (at most 2³²), by Lemire's multiplication without rejection: biased by less than n / 2³². */
  below(n: number): number;
}

/** `stream` tells apart what is drawn with one seed. */
export function random(seed: bigint, stream: number): Random {
  const key = splitMix64(BigInt.asUintN(64, seed), stream);
  const [low, high] = [splitMix64(key, 0), splitMix64(key, 1)];
  let a = Number(low & 0xffffffffn) | 0;
  let b = Number(low >> 32n) | 0;
  let c = Number(high & 0xffffffffn) | 0;
  let d = Number(high >> 32n) | 1;
  const next = (): number => {
    let out = Math.imul(b, 5);
    out = Math.imul((out << 7) | (out >>> 25), 9);
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return out >>> 0;
  };
  return {
    next,
    unit: () => (next() >>> 8) / 2 ** 24,
    below: (n) => Math.floor((next() / 2 ** 32) * n),
  };
}

/** 0 … count − 1 in random order (Fisher & Yates). */
export function shuffled(count: number, source: Random): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = source.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}
