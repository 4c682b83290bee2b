/** The safetensors format (huggingface/safetensors, README): u64 length, JSON header, tensors; read by ranges, written whole. */
import { EngineError, type EngineErrorCode } from '../engine-error.ts';

const WIDTHS = { F32: 4, F16: 2, BF16: 2 } as const;
type FloatType = keyof typeof WIDTHS;
const LONGEST_HEADER = 100_000_000;

export interface TensorEntry {
  readonly name: string;
  readonly type: FloatType;
  readonly shape: readonly number[];
  /** Bytes from the beginning of the file. */
  readonly start: number;
  readonly end: number;
}

/** Length of the JSON header from the first 8 bytes of a file of `total` bytes. */
export function headerLength(first: Uint8Array, total: number, code: EngineErrorCode): number {
  if (first.length < 8) throw new EngineError(code, 'safetensors: shorter than its header');
  const length = new DataView(first.buffer, first.byteOffset).getBigUint64(0, true);
  if (length > BigInt(Math.min(LONGEST_HEADER, total - 8))) {
    throw new EngineError(code, `safetensors: a header of ${length} bytes in a file of ${total}`);
  }
  return Number(length);
}

export function parseHeader(header: Uint8Array, total: number, code: EngineErrorCode): Map<string, TensorEntry> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(header));
  } catch (cause) {
    throw new EngineError(code, 'safetensors: the header is not JSON', { cause });
  }
  if (typeof parsed !== 'object' || parsed === null)
    throw new EngineError(code, 'safetensors: the header is no object');
  const base = 8 + header.length;
  const entries = new Map<string, TensorEntry>();
  for (const [name, value] of Object.entries(parsed as Record<string, unknown>)) {
    if (name === '__metadata__') continue;
    const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
    const fault = (what: string): EngineError => new EngineError(code, `safetensors: ${name}: ${what}`);
    if (typeof dtype !== 'string' || !(dtype in WIDTHS)) throw fault(`type ${String(dtype)}`);
    if (!isSizes(shape) || !isSizes(offsets) || offsets.length !== 2) throw fault('shape or offsets');
    const [start, end] = offsets as [number, number];
    const size = shape.reduce((product, n) => product * n, WIDTHS[dtype as FloatType]);
    if (end - start !== size || base + end > total) throw fault(`bytes ${start} to ${end} for ${size}`);
    entries.set(name, { name, type: dtype as FloatType, shape, start: base + start, end: base + end });
  }
  let last = 0;
  for (const entry of [...entries.values()].sort((x, y) => x.start - y.start || x.end - y.end)) {
    if (entry.start < last) throw new EngineError(code, `safetensors: ${entry.name} lies over another tensor`);
    last = entry.end;
  }
  return entries;
}

export function readTensors(
  file: Uint8Array,
  code: EngineErrorCode,
): Map<string, TensorEntry & { values: Float32Array }> {
  const length = headerLength(file.subarray(0, 8), file.length, code);
  const entries = parseHeader(file.subarray(8, 8 + length), file.length, code);
  return new Map(
    [...entries].map(([name, entry]) => [
      name,
      { ...entry, values: toFloats(file.subarray(entry.start, entry.end), entry.type) },
    ]),
  );
}

/** Bytes of a tensor as floats. */
export function toFloats(bytes: Uint8Array, type: FloatType): Float32Array {
  if (type === 'F32') return new Float32Array(new Uint8Array(bytes).buffer);
  const halves = new Uint16Array(new Uint8Array(bytes).buffer);
  const bits = new Uint32Array(halves.length);
  if (type === 'BF16') for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  else for (let i = 0; i < halves.length; i++) bits[i] = halfBits(halves[i]!);
  return new Float32Array(bits.buffer);
}

/** Bits of the float32 that equals a half-precision number (IEEE 754 binary16). */
function halfBits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 31;
  let fraction = half & 0x3ff;
  if (exponent === 31) return sign | 0x7f800000 | (fraction << 13);
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  let shift = 113;
  while ((fraction & 0x400) === 0) {
    fraction <<= 1;
    shift--;
  }
  return sign | (shift << 23) | ((fraction & 0x3ff) << 13);
}

export interface TensorToWrite {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** All tensors as F32, ascending by name, the header padded with spaces to a multiple of 8: the same tensors, the same bytes. */
export function writeTensors(tensors: readonly TensorToWrite[]): Uint8Array {
  const sorted = [...tensors].sort((x, y) => (x.name < y.name ? -1 : x.name > y.name ? 1 : 0));
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const { name, shape, values } of sorted) {
    header[name] = { dtype: 'F32', shape, data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
  }
  let json = JSON.stringify(header);
  json = json.padEnd(json.length + ((8 - (Buffer.byteLength(json) % 8)) % 8));
  const text = new TextEncoder().encode(json);
  const file = new Uint8Array(8 + text.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let at = 8 + text.length;
  for (const { values } of sorted) {
    file.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += values.byteLength;
  }
  return file;
}

const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
