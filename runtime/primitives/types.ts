/** The types that every layer shares: hashes, accounts, signatures, eras. Paths are Substrate's, for the metadata. */
import { equalBytes } from './bytes.ts';
import {
  branded,
  bytes,
  type Codec,
  compact,
  fixedBytes,
  type Infer,
  named,
  struct,
  text,
  tuple,
  u8,
  u32,
  u64,
  u128,
  unit,
  variants,
  vec,
} from './scale/codec.ts';
import { ScaleError } from './scale/io.ts';
import type { TypeDef } from './scale/type.ts';

export const hash = named('primitive_types::H256', branded<'Hash'>()(fixedBytes(32)));
export type Hash = Infer<typeof hash>;
export const asHash = (bytes: Uint8Array): Hash => {
  if (bytes.length !== 32) throw new ScaleError('OUT_OF_RANGE', `a hash has 32 bytes, not ${bytes.length}`);
  return bytes as Hash;
};
export const ZERO_HASH: Hash = new Uint8Array(32) as Hash;

export const accountId = named('sp_core::crypto::AccountId32', branded<'AccountId'>()(fixedBytes(32)));
export type AccountId = Infer<typeof accountId>;
export const asAccountId = (bytes: Uint8Array): AccountId => {
  if (bytes.length !== 32) throw new ScaleError('OUT_OF_RANGE', `an account id has 32 bytes, not ${bytes.length}`);
  return bytes as AccountId;
};

/** Amounts of OPEN in its smallest unit (18 decimals). */
export const balance = u128;
export type Balance = bigint;
export const blockNumber = u32;
export type BlockNumber = number;
export const nonce = u32;
export type Nonce = number;

/** `Compact<()>`: no bytes. */
const compactUnit: Codec<undefined> = { ...unit, type: { shape: { kind: 'compact', of: unit.type } } };

/** `sp_runtime::MultiAddress<AccountId, ()>`. */
export const multiAddress = named(
  'sp_runtime::multiaddress::MultiAddress',
  variants({
    Id: accountId,
    Index: compactUnit,
    Raw: bytes(),
    Address32: fixedBytes(32),
    Address20: fixedBytes(20),
  }),
  {
    params: [
      { name: 'AccountId', type: accountId.type },
      { name: 'AccountIndex', type: unit.type },
    ],
  },
);
export type MultiAddress = Infer<typeof multiAddress>;

/** `sp_runtime::MultiSignature`: 64, 64 and 65 bytes. */
export const multiSignature = named(
  'sp_runtime::MultiSignature',
  variants({ Ed25519: fixedBytes(64), Sr25519: fixedBytes(64), Ecdsa: fixedBytes(65) }),
);
export type MultiSignature = Infer<typeof multiSignature>;

/** Parts per billion, `0 … 10^9`. */
export const perbill = named('sp_arithmetic::per_things::Perbill', u32);
export const PERBILL = 1_000_000_000;

/** Parts per 10^18. */
export const fixedU128 = named('sp_arithmetic::fixed_point::FixedU128', u128);
export const FIXED_U128_ONE = 1_000_000_000_000_000_000n;

/** Two-dimensional weight: picoseconds of the reference machine, bytes of proof. */
export const weight = named(
  'sp_weights::weight_v2::Weight',
  struct({ refTime: compact(u64), proofSize: compact(u64) }),
);
export type Weight = Infer<typeof weight>;

export const runtimeVersion = named(
  'sp_version::RuntimeVersion',
  struct({
    specName: text(64),
    implName: text(64),
    authoringVersion: u32,
    specVersion: u32,
    implVersion: u32,
    apis: vec(tuple(fixedBytes(8), u32), 256),
    transactionVersion: u32,
    systemVersion: u8,
  }),
);
export type RuntimeVersion = Infer<typeof runtimeVersion>;

/** A transaction's mortality: for ever, or `period` blocks from a phase on (Polkadot specification, definition 113). */
export type Era =
  | { readonly type: 'Immortal' }
  | { readonly type: 'Mortal'; readonly period: number; readonly phase: number };

const eraVariants = (): TypeDef => ({
  path: ['sp_runtime', 'generic', 'era', 'Era'],
  shape: {
    kind: 'variant',
    variants: Array.from({ length: 256 }, (_, index) => ({
      name: index === 0 ? 'Immortal' : `Mortal${index}`,
      index,
      fields: index === 0 ? [] : [{ type: u8.type }],
    })),
  },
});

export const era: Codec<Era> = {
  type: eraVariants(),
  minSize: 1,
  encodeTo(sink, value) {
    if (value.type === 'Immortal') {
      sink.u8(0);
      return;
    }
    const quantizeFactor = Math.max(value.period >> 12, 1);
    const encoded =
      Math.min(15, Math.max(1, Math.log2(value.period) - 1)) | (Math.floor(value.phase / quantizeFactor) << 4);
    sink.u16(encoded);
  },
  decodeFrom(source) {
    const first = source.u8();
    if (first === 0) return { type: 'Immortal' };
    const encoded = first | (source.u8() << 8);
    const period = 2 << (encoded % 16);
    const phase = (encoded >> 4) * Math.max(period >> 12, 1);
    if (period < 4 || phase >= period) throw new ScaleError('OUT_OF_RANGE', 'invalid era period or phase');
    return { type: 'Mortal', period, phase };
  },
};

/** The block from which on an era valid at `current` holds. */
export const eraBirth = (value: Era, current: BlockNumber): BlockNumber =>
  value.type === 'Immortal'
    ? 0
    : Math.floor((Math.max(current, value.phase) - value.phase) / value.period) * value.period + value.phase;

/** The block from which on the era holds no more (none for immortal ones). */
export const eraDeath = (value: Era, current: BlockNumber): BlockNumber =>
  value.type === 'Immortal' ? 0xffffffff : eraBirth(value, current) + value.period;

export const sameAccount = (a: AccountId, b: AccountId): boolean => equalBytes(a, b);
