/**
 * The digest of the metadata that hardware wallets sign (RFC-78, merkleized metadata): the types that transactions are made
 * of as leaves of a Merkle tree, with what amounts are called. It does not depend on the version of the metadata that a wallet reads.
 */
import type { Codec } from '../primitives/scale/codec.ts';
import {
  compact,
  encode,
  fixedBytes,
  option,
  struct,
  text,
  u8,
  u16,
  u32,
  variants,
  vec,
} from '../primitives/scale/codec.ts';
import { Sink } from '../primitives/scale/io.ts';
import type { Description } from './metadata.ts';
import { type PortableType, PRIMITIVES } from './registry.ts';

/** What a wallet shows amounts and addresses by. */
export interface ChainInfo {
  readonly specVersion: number;
  readonly specName: string;
  /** Of SS58 addresses. */
  readonly base58Prefix: number;
  readonly decimals: number;
  readonly tokenSymbol: string;
}

type Blake3 = (data: Uint8Array) => Uint8Array;

/** Only extrinsics of this version are signed with the digest. */
const EXTRINSIC_VERSION = 4;

// ---- the formats of RFC-78 -----------------------------------------------------------------------------------

const COMPACTS = ['u8', 'u16', 'u32', 'u64', 'u128', 'u256'];
const VOID = PRIMITIVES.length + COMPACTS.length;
const PER_ID = VOID + 1;

type TypeRef = { readonly tag: number; readonly id?: number };
const typeRef: Codec<TypeRef> = {
  type: { shape: { kind: 'tuple', of: [] } },
  minSize: 1,
  encodeTo(sink, { tag, id }) {
    sink.u8(tag);
    if (id !== undefined) sink.compact(id);
  },
  decodeFrom() {
    throw new Error('references to types are only written');
  },
};
const field = struct({ name: option(text()), type: typeRef, typeName: option(text()) });
const typeDef = variants({
  Composite: vec(field),
  Enumeration: struct({ name: text(), fields: vec(field), index: compact(u32) }),
  Sequence: typeRef,
  Array: struct({ length: u32, of: typeRef }),
  Tuple: vec(typeRef),
});
const leaf = struct({ path: vec(text()), typeDef, typeId: compact(u32) });
const extrinsicMetadata = struct({
  version: u8,
  address: typeRef,
  call: typeRef,
  signature: typeRef,
  extensions: vec(struct({ identifier: text(), inExtrinsic: typeRef, inSignedData: typeRef })),
});
const digestV1 = struct({
  typeTreeRoot: fixedBytes(32),
  extrinsicHash: fixedBytes(32),
  specVersion: u32,
  specName: text(),
  base58Prefix: u16,
  decimals: u8,
  tokenSymbol: text(),
});
const DIGEST_VERSION = 1;

// ---- types ---------------------------------------------------------------------------------------------------

type Shape = PortableType['shape'];

const isEmpty = (shape: Shape): boolean =>
  (shape.kind === 'composite' && shape.fields.length === 0) ||
  (shape.kind === 'variant' && shape.variants.length === 0) ||
  (shape.kind === 'tuple' && shape.of.length === 0);

const partsOf = (shape: Shape): readonly number[] => {
  switch (shape.kind) {
    case 'composite':
      return shape.fields.map(({ type }) => type);
    case 'variant':
      return shape.variants.flatMap(({ fields }) => fields.map(({ type }) => type));
    case 'tuple':
      return shape.of;
    case 'sequence':
    case 'array':
      return [shape.of];
    default:
      return [];
  }
};

class Types {
  readonly #types: readonly PortableType[];
  readonly #idOf: (provisional: number) => number;
  /** Numbers in the tree by those in the metadata. */
  readonly #ids: ReadonlyMap<number, number>;

  constructor({ types, idOf }: Pick<Description, 'types' | 'idOf'>, roots: readonly number[]) {
    this.#types = types;
    this.#idOf = idOf;
    const found = new Set<number>();
    const open = [...roots];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      const id = idOf(next);
      const { shape } = this.#types[id]!;
      if (shape.kind === 'primitive' || shape.kind === 'compact' || isEmpty(shape) || found.has(id)) continue;
      found.add(id);
      for (const part of partsOf(shape)) open.push(part);
    }
    this.#ids = new Map([...found].sort((a, b) => a - b).map((id, index) => [id, index]));
  }

  ref(provisional: number): TypeRef {
    const id = this.#idOf(provisional);
    const { shape } = this.#types[id]!;
    if (shape.kind === 'primitive') return { tag: PRIMITIVES.indexOf(shape.name) };
    if (shape.kind === 'compact') {
      const name = this.#primitiveOf(shape.of);
      return { tag: name === undefined ? VOID : PRIMITIVES.length + COMPACTS.indexOf(name) };
    }
    const own = this.#ids.get(id);
    return own === undefined ? { tag: VOID } : { tag: PER_ID, id: own };
  }

  /** The integer in a compact newtype. */
  #primitiveOf(provisional: number): string | undefined {
    const { shape } = this.#types[this.#idOf(provisional)]!;
    if (shape.kind === 'primitive') return shape.name;
    const [only] = partsOf(shape);
    return only === undefined ? undefined : this.#primitiveOf(only);
  }

  /** In the order of their numbers, the variants of an enum one by one. */
  leaves(): Uint8Array[] {
    return [...this.#ids].flatMap(([id, typeId]) => {
      const { path, shape } = this.#types[id]!;
      return this.#definitions(shape).map((definition) =>
        encode(leaf, { path: [...path], typeDef: definition, typeId }),
      );
    });
  }

  #fields(fields: readonly { readonly name?: string; readonly type: number; readonly typeName?: string }[]) {
    return fields.map(({ name, type, typeName }) => ({ name, type: this.ref(type), typeName }));
  }

  #definitions(shape: Shape) {
    switch (shape.kind) {
      case 'composite':
        return [{ type: 'Composite', value: this.#fields(shape.fields) }] as const;
      case 'variant':
        return shape.variants
          .toSorted((a, b) => a.index - b.index)
          .map(({ name, index, fields }) => ({
            type: 'Enumeration' as const,
            value: { name, fields: this.#fields(fields), index },
          }));
      case 'sequence':
        return [{ type: 'Sequence', value: this.ref(shape.of) }] as const;
      case 'array':
        return [{ type: 'Array', value: { length: shape.length, of: this.ref(shape.of) } }] as const;
      case 'tuple':
        return [{ type: 'Tuple', value: shape.of.map((each) => this.ref(each)) }] as const;
      default:
        throw new Error(`${shape.kind} types have no leaf`);
    }
  }
}

/** A complete binary tree as an array: the children of node `i` are `2i + 1` and `2i + 2`. */
function treeRoot(leaves: readonly Uint8Array[], blake3: Blake3): Uint8Array {
  if (leaves.length === 0) return new Uint8Array(32);
  const nodes: Uint8Array[] = new Array(leaves.length * 2 - 1);
  leaves.forEach((each, i) => {
    nodes[leaves.length - 1 + i] = blake3(each);
  });
  for (let i = leaves.length - 2; i >= 0; i--) {
    const both = new Uint8Array(64);
    both.set(nodes[2 * i + 1]!);
    both.set(nodes[2 * i + 2]!, 32);
    nodes[i] = blake3(both);
  }
  return nodes[0]!;
}

/** 32 bytes. */
export function metadataDigest(description: Description, info: ChainInfo, blake3: Blake3): Uint8Array {
  const { extrinsic } = description;
  const types = new Types(description, [
    extrinsic.call,
    extrinsic.address,
    extrinsic.signature,
    ...extrinsic.extensions.flatMap(({ type, implicit }) => [type, implicit]),
  ]);
  const signed = encode(extrinsicMetadata, {
    version: EXTRINSIC_VERSION,
    address: types.ref(extrinsic.address),
    call: types.ref(extrinsic.call),
    signature: types.ref(extrinsic.signature),
    extensions: extrinsic.extensions.map(({ name, type, implicit }) => ({
      identifier: name,
      inExtrinsic: types.ref(type),
      inSignedData: types.ref(implicit),
    })),
  });
  const sink = new Sink();
  sink.u8(DIGEST_VERSION);
  digestV1.encodeTo(sink, {
    typeTreeRoot: treeRoot(types.leaves(), blake3),
    extrinsicHash: blake3(signed),
    ...info,
  });
  return blake3(sink.finish());
}
