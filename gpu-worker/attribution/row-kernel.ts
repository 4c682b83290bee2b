/**
 * Dot products of all int8 rows with four queries at a time, in WebAssembly SIMD. The module is assembled here, 200 bytes
 * of it; `rowDots` in the runtime's primitives is the reference, and gives the same integers.
 *
 * Four queries share one read of the rows, which is what bounds the speed: 10,000 rows of k = 256 are 2.5 MB.
 */
import type { FeatureTable } from '../../runtime/primitives/attribution/features.ts';
import { influenceFromDots, type QueryFeature } from '../../runtime/primitives/attribution/influence.ts';

/** Queries a pass. */
export const LANES = 4;

export interface DotKernel {
  /** Dot products of up to {@link LANES} queries: query q's are at `q·rows`. A view, valid until the next call. */
  dots(queries: readonly QueryFeature[]): Int32Array;
}

export interface RowKernel extends DotKernel {
  /** Influence by contributor of each query, as `influenceByRows` gives it. */
  influence(queries: readonly QueryFeature[]): bigint[][];
}

export class KernelError extends Error {
  readonly code: 'WRONG_WIDTH' | 'TOO_LARGE';
  constructor(code: KernelError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

const PAGE = 65_536;

export function dotKernel({ k, rows, values }: Pick<FeatureTable, 'k' | 'rows' | 'values'>): DotKernel {
  const stride = Math.max(16, Math.ceil(k / 16) * 16);
  // Chunks of 16 entries, in each the four queries one after the other, as i16.
  const queryAt = rows * stride;
  const outAt = queryAt + stride * 2 * LANES;
  const pages = Math.ceil((outAt + rows * 4 * LANES) / PAGE) + 1;
  if (pages > 65_536) throw new KernelError('TOO_LARGE', `${rows} rows of ${k} do not fit into 4 GiB`);
  const memory = new WebAssembly.Memory({ initial: pages });
  const bytes = new Int8Array(memory.buffer);
  for (let i = 0; i < rows; i++) bytes.set(values.subarray(i * k, (i + 1) * k), i * stride);
  const instance = new WebAssembly.Instance(new WebAssembly.Module(assemble()), { env: { memory } });
  const run = instance.exports.dots as (
    row: number,
    query: number,
    out: number,
    rows: number,
    stride: number,
    outStride: number,
  ) => void;
  const packed = new Int16Array(memory.buffer, queryAt, stride * LANES);
  const out = new Int32Array(memory.buffer, outAt, rows * LANES);

  return {
    dots(queries) {
      packed.fill(0);
      for (const [q, query] of queries.entries()) {
        if (query.length !== k || q >= LANES)
          throw new KernelError('WRONG_WIDTH', `${query.length} entries, k is ${k}`);
        for (let j = 0; j < k; j++) packed[(j >> 4) * 16 * LANES + q * 16 + (j & 15)] = query[j]!;
      }
      if (rows > 0) run(0, queryAt, outAt, rows, stride, rows * 4);
      return out;
    },
  };
}

export function rowKernel(table: FeatureTable): RowKernel {
  const { rows } = table;
  const { dots } = dotKernel(table);
  return {
    dots,
    influence(queries) {
      const influences: bigint[][] = [];
      for (let from = 0; from < queries.length; from += LANES) {
        const some = queries.slice(from, from + LANES);
        const found = dots(some);
        for (const q of some.keys()) influences.push(influenceFromDots(table, found, q * rows));
      }
      return influences;
    },
  };
}

// ---- the module ----------------------------------------------------------------------------------------------

/** Unsigned LEB128. */
function leb(value: number): number[] {
  const out: number[] = [];
  do {
    const more = value >>> 7;
    out.push((value & 0x7f) | (more === 0 ? 0 : 0x80));
    value = more;
  } while (value !== 0);
  return out;
}

const sized = (body: readonly number[]): number[] => [...leb(body.length), ...body];
const section = (id: number, body: readonly number[]): number[] => [id, ...sized(body)];
const name = (text: string): number[] => sized([...text].map((letter) => letter.charCodeAt(0)));

const I32 = 0x7f;
const V128 = 0x7b;
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const constant = (value: number): number[] => [0x41, value];
const ADD = 0x6a;
const SUB = 0x6b;
const simd = (opcode: number): number[] => [0xfd, ...leb(opcode)];
const ADD_4 = simd(0xae);
const DOT_8 = simd(0xba);
/** `v128.load8x8_s` and `v128.load`, each with its alignment hint. */
const widen = (offset: number): number[] => [...simd(1), 0, ...leb(offset)];
const load = (offset: number): number[] => [...simd(0), 0, ...leb(offset)];
const lane = (n: number): number[] => [...simd(0x1b), n];
const loop = (body: readonly number[]): number[] => [0x03, 0x40, ...body, 0x0b];
const again = [0x0d, 0];

/** `dots(row, query, out, rows, stride, outStride)`: all addresses in bytes. */
function assemble(): Uint8Array<ArrayBuffer> {
  const [row, query, out, rows, stride, outStride] = [0, 1, 2, 3, 4, 5];
  const [end, at, to] = [6, 7, 8];
  const [low, high, sums] = [9, 10, 11];
  const queries = Array.from({ length: LANES }, (_, q) => q);
  const chunk = [
    ...[...get(row), ...widen(0), ...set(low)],
    ...[...get(row), ...widen(8), ...set(high)],
    ...queries.flatMap((q) => [
      ...get(sums + q),
      ...[...get(low), ...get(at), ...load(32 * q), ...DOT_8],
      ...[...get(high), ...get(at), ...load(32 * q + 16), ...DOT_8],
      ...[...ADD_4, ...ADD_4, ...set(sums + q)],
    ]),
    ...[...get(at), ...constant(0x80), 0x01, ADD, ...set(at)],
    ...[...get(row), ...constant(16), ADD, ...set(row)],
    ...[...get(row), ...get(end), 0x49, ...again],
  ];
  const each = [
    ...[...get(row), ...get(stride), ADD, ...set(end)],
    ...[...get(query), ...set(at)],
    ...queries.flatMap((q) => [...simd(12), ...new Array<number>(16).fill(0), ...set(sums + q)]),
    ...loop(chunk),
    ...[...get(out), ...set(to)],
    ...queries.flatMap((q) => [
      ...get(to),
      ...[0, 1, 2, 3].flatMap((n) => [...get(sums + q), ...lane(n), ...(n > 0 ? [ADD] : [])]),
      ...[0x36, 2, 0],
      ...[...get(to), ...get(outStride), ADD, ...set(to)],
    ]),
    ...[...get(out), ...constant(4), ADD, ...set(out)],
    ...[...get(rows), ...constant(1), SUB, 0x22, rows, ...again],
  ];
  const locals = [2, 3, I32, 2 + LANES, V128];
  const body = [...locals, ...loop(each), 0x0b];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 6, I32, I32, I32, I32, I32, I32, 0]),
    ...section(2, [1, ...name('env'), ...name('memory'), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name('dots'), 0, 0]),
    ...section(10, [1, ...sized(body)]),
  ]);
}
