/**
 * Bases as files, so that another worker can recompute any feature: `eigenbases.safetensors` and `projection.safetensors`
 * (F32 tensors; the header's keys in a fixed order, so that equal bases are equal files), named by the blake2b-256 of
 * their bytes like every blob. Those of an 8B model are some 400 MB: floats are moved as memory, not one by one, on machines that keep
 * them as the format does (least byte first, as all do that Node.js has builds of its own for).
 */
import { fromUtf8, utf8 } from '../../runtime/primitives/bytes.ts';
import { blockEntries, type GradientLayout, gradientLayout } from './layout.ts';
import type { Eigenbases } from './precondition.ts';
import type { Projection } from './projection.ts';

export class BasisFileError extends Error {
  readonly code = 'BAD_BASIS_FILE';
}

interface Tensors {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>;
}

const MAX_HEADER = 16 * 2 ** 20;

export function writeTensors({ metadata, tensors }: Tensors): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const json = utf8(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8;
  const out = new Uint8Array(8 + padded + offset);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(padded), true);
  out.fill(32, 8, 8 + padded);
  out.set(json, 8);
  let at = 8 + padded;
  for (const { data } of tensors.values()) {
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return out;
}

/** Tensors are views of `bytes` where they lie at whole words in them. */
export function readTensors(bytes: Uint8Array): Tensors {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length < 8 ? 0 : Number(view.getBigUint64(0, true));
  if (length < 2 || length > MAX_HEADER || 8 + length > bytes.length) throw new BasisFileError('no safetensors header');
  let header: unknown;
  try {
    header = JSON.parse(fromUtf8(bytes.subarray(8, 8 + length)));
  } catch {
    throw new BasisFileError('the safetensors header is not JSON');
  }
  if (!isRecord(header)) throw new BasisFileError('the safetensors header is not an object');
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
  const metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (!isRecord(entry)) throw new BasisFileError(`${name}: not an object`);
    if (name === '__metadata__') {
      for (const [key, value] of Object.entries(entry)) metadata[key] = String(value);
      continue;
    }
    const { dtype, shape, data_offsets: offsets } = entry;
    if (dtype !== 'F32' || !isIntegers(shape) || !isIntegers(offsets) || offsets.length !== 2) {
      throw new BasisFileError(`${name}: not an F32 tensor`);
    }
    const [start, end] = offsets as [number, number];
    const count = shape.reduce((product, each) => product * each, 1);
    if (start > end || 8 + length + end > bytes.length || end - start !== count * 4) {
      throw new BasisFileError(`${name}: its bytes lie outside of the file or do not fit its shape`);
    }
    const data = asFloats(bytes.subarray(8 + length + start, 8 + length + end));
    for (let i = 0; i < count; i++) {
      if (!Number.isFinite(data[i]!)) throw new BasisFileError(`${name}: entry ${i} is not finite`);
    }
    tensors.set(name, { shape, data });
  }
  return { metadata, tensors };
}

/** A view of a multiple of 4 bytes where they lie at whole words, else a copy of them. */
export function asFloats(bytes: Uint8Array): Float32Array {
  const whole = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  return new Float32Array(whole.buffer, whole.byteOffset, whole.byteLength / 4);
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isIntegers = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);

export function writeEigenbases(layout: GradientLayout, { rank, hidden, lambda, damping }: Eigenbases): Uint8Array {
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const [m, matrix] of layout.matrices.entries()) {
    tensors.set(`rank.${matrix.name}`, { shape: [matrix.rank, matrix.rank], data: rank[m]! });
    tensors.set(`hidden.${matrix.name}`, { shape: [hidden[m]!.length], data: hidden[m]! });
    tensors.set(`lambda.${matrix.name}`, {
      shape: [matrix.rank, matrix.hidden],
      data: lambda.subarray(matrix.offset, matrix.offset + matrix.rank * matrix.hidden),
    });
  }
  return writeTensors({
    metadata: { format: 'openledger-eigenbases/1', block: String(layout.block), damping: String(damping) },
    tensors,
  });
}

/** Layout and bases. Throws {@link BasisFileError}. */
export function readEigenbases(bytes: Uint8Array): {
  readonly layout: GradientLayout;
  readonly eigenbases: Eigenbases;
} {
  const { metadata, tensors } = readTensors(bytes);
  if (metadata.format !== 'openledger-eigenbases/1') throw new BasisFileError('not a file of eigenbases');
  const block = Number(metadata.block);
  const damping = Number(metadata.damping);
  if (!Number.isInteger(block) || block < 1 || !(damping > 0)) throw new BasisFileError('bad block or damping');
  const matrices = [...tensors]
    .filter(([name]) => name.startsWith('lambda.'))
    .map(([name, { shape }]) => {
      if (shape.length !== 2) throw new BasisFileError(`${name}: not a matrix`);
      return { name: name.slice('lambda.'.length), rank: shape[0]!, hidden: shape[1]! };
    });
  const layout = gradientLayout(matrices, block);
  const take = (name: string, length: number): Float32Array => {
    const data = tensors.get(name)?.data;
    if (data?.length !== length) throw new BasisFileError(`${name}: missing or of wrong size`);
    return data;
  };
  const lambda = new Float32Array(layout.size);
  const rank: Float32Array[] = [];
  const hidden: Float32Array[] = [];
  for (const matrix of layout.matrices) {
    rank.push(take(`rank.${matrix.name}`, matrix.rank ** 2));
    hidden.push(take(`hidden.${matrix.name}`, blockEntries(matrix.hidden, block)));
    lambda.set(take(`lambda.${matrix.name}`, matrix.rank * matrix.hidden), matrix.offset);
  }
  for (const value of lambda) if (value < 0) throw new BasisFileError('negative entries in Λ');
  return { layout, eigenbases: { rank, hidden, lambda, damping } };
}

export const writeProjection = ({ k, width, vectors, energy }: Projection): Uint8Array =>
  writeTensors({
    metadata: { format: 'openledger-projection/1' },
    tensors: new Map([
      ['energy', { shape: [k], data: energy }],
      ['vectors', { shape: [k, width], data: vectors }],
    ]),
  });

/** Throws {@link BasisFileError}. */
export function readProjection(bytes: Uint8Array): Projection {
  const { metadata, tensors } = readTensors(bytes);
  const vectors = tensors.get('vectors');
  const energy = tensors.get('energy');
  if (metadata.format !== 'openledger-projection/1' || vectors === undefined || energy === undefined) {
    throw new BasisFileError('not a file of a projection');
  }
  const [k, width] = vectors.shape;
  if (vectors.shape.length !== 2 || k === undefined || width === undefined || energy.data.length !== k) {
    throw new BasisFileError('the projection has a wrong shape');
  }
  return { k, width, vectors: vectors.data, energy: energy.data };
}
