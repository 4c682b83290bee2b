/** Block headers and their digests (Polkadot specification, section 2.4). */

import type { Hashing } from '../host.ts';
import { utf8 } from './bytes.ts';
import {
  branded,
  bytes,
  type Codec,
  compact,
  encode,
  fixedBytes,
  type Infer,
  named,
  struct,
  tuple,
  u32,
  variants,
  vec,
} from './scale/codec.ts';
import { asHash, type Hash, hash } from './types.ts';

/** Four ASCII letters naming a consensus engine. */
export const engineId = branded<'EngineId'>()(fixedBytes(4));
export type EngineId = Infer<typeof engineId>;
export const AURA_ENGINE: EngineId = utf8('aura') as EngineId;
export const GRANDPA_ENGINE: EngineId = utf8('FRNK') as EngineId;

export const digestItem = named(
  'sp_runtime::generic::digest::DigestItem',
  variants({
    PreRuntime: [6, tuple(engineId, bytes())],
    Consensus: [4, tuple(engineId, bytes())],
    Seal: [5, tuple(engineId, bytes())],
    Other: [0, bytes()],
    RuntimeEnvironmentUpdated: [8, null],
  }),
);
export type DigestItem = Infer<typeof digestItem>;

export const digest = named('sp_runtime::generic::digest::Digest', struct({ logs: vec(digestItem) }));
export type Digest = Infer<typeof digest>;

export const header = named(
  'sp_runtime::generic::header::Header',
  struct({
    parentHash: hash,
    number: compact(u32),
    stateRoot: hash,
    extrinsicsRoot: hash,
    digest,
  }),
);
export type Header = Infer<typeof header>;

export const headerHash = (hashing: Pick<Hashing, 'blake2_256'>, value: Header): Hash =>
  asHash(hashing.blake2_256(encode(header, value)));

/** An extrinsic as it stands in a block body: its bytes without the length prefix. */
export const opaqueExtrinsic: Codec<Uint8Array> = named('sp_runtime::OpaqueExtrinsic', bytes());
/** What the extrinsics root of a header is over: extrinsics as `frame_executive` notes them, each with its length before it. */
export const extrinsicItems = (extrinsics: readonly Uint8Array[]): readonly Uint8Array[] =>
  extrinsics.map((each) => encode(opaqueExtrinsic, each));

export const block = named('sp_runtime::generic::block::Block', struct({ header, extrinsics: vec(opaqueExtrinsic) }));
export type Block = Infer<typeof block>;

/** Justifications as stored and sent: one per consensus engine. */
export const justifications = vec(tuple(engineId, bytes()));
export type Justifications = Infer<typeof justifications>;
