/**
 * Extrinsics, version 4 and 5 (`sp_runtime::generic::UncheckedExtrinsic`). Version 4 is signed or bare; version 5 is
 * bare or general. Transactions here are handled without their outer length prefix.
 */
import type { AnyExtension } from '../framework/extension.ts';
import type { Env } from '../framework/pallet.ts';
import type { RuntimeCall } from '../framework/runtime-call.ts';
import type { Hashing, Signatures } from '../host.ts';
import { concatBytes, equalBytes } from '../primitives/bytes.ts';
import type { Codec } from '../primitives/scale/codec.ts';
import { ScaleError, Sink, Source } from '../primitives/scale/io.ts';
import {
  type AccountId,
  type MultiAddress,
  type MultiSignature,
  multiAddress,
  multiSignature,
  type Weight,
} from '../primitives/types.ts';

export type Preamble =
  | { readonly type: 'Bare' }
  | {
      readonly type: 'Signed';
      readonly address: MultiAddress;
      readonly signature: MultiSignature;
      readonly extra: readonly unknown[];
      readonly extraBytes: Uint8Array;
    }
  | {
      readonly type: 'General';
      readonly extensionVersion: number;
      readonly extra: readonly unknown[];
      readonly extraBytes: Uint8Array;
    };

/** An extrinsic whose call was not decoded yet: enough for its signature, its signer's nonce and balance. */
export interface ExtrinsicHead {
  readonly version: 4 | 5;
  readonly preamble: Preamble;
  /** All that comes after the preamble. */
  readonly callBytes: Uint8Array;
  /** Length in bytes with the outer length prefix, which fees and limits go by. */
  readonly length: number;
}

export interface Extrinsic extends ExtrinsicHead {
  readonly call: RuntimeCall;
  /** What decoding, copying and hashing it takes: by its length, its calls and the items of its lists. */
  readonly overhead: Weight;
}

/** Items that all lists of an extrinsic may hold together. */
export const MAX_ITEMS = 65_536;
const PS_PER_BYTE = 5_000n;
const PS_PER_ITEM = 150_000n;
const PS_PER_CALL = 2_000_000n;

const SIGNED_V4 = 0x84;
const BARE_V4 = 0x04;
const BARE_V5 = 0x05;
const GENERAL_V5 = 0x45;
/** Whether encoded bytes say that they are an extrinsic without signature and extensions. */
export const isBare = (encoded: Uint8Array): boolean => encoded[0] === BARE_V4 || encoded[0] === BARE_V5;

/** The only version of the list of extensions so far. */
const EXTENSION_VERSION = 0;

const compactLength = (length: number): number =>
  length < 0x40 ? 1 : length < 0x4000 ? 2 : length < 0x40000000 ? 4 : 5;

/** What a version-4 signature is over: call, extra and implicit data; hashed when longer than 256 bytes. */
export function signedMessage(
  hashing: Pick<Hashing, 'blake2_256'>,
  parts: { readonly call: Uint8Array; readonly extra: Uint8Array; readonly implicit: Uint8Array },
): Uint8Array {
  const message = concatBytes(parts.call, parts.extra, parts.implicit);
  return message.length > 256 ? hashing.blake2_256(message) : message;
}

/** A signed extrinsic, version 4, without length prefix. `call` and `extra` are encoded. */
export function encodeSigned(parts: {
  readonly signer: AccountId;
  readonly signature: MultiSignature;
  readonly extra: Uint8Array;
  readonly call: Uint8Array;
}): Uint8Array {
  const sink = new Sink(parts.call.length + parts.extra.length + 128);
  sink.u8(SIGNED_V4);
  multiAddress.encodeTo(sink, { type: 'Id', value: parts.signer });
  multiSignature.encodeTo(sink, parts.signature);
  sink.bytes(parts.extra);
  sink.bytes(parts.call);
  return sink.finish();
}

/** An extrinsic without signature, version 4. */
export function encodeBare(codec: Codec<RuntimeCall>, call: RuntimeCall): Uint8Array {
  const sink = new Sink();
  sink.u8(BARE_V4);
  codec.encodeTo(sink, call);
  return sink.finish();
}

export class ExtrinsicCodec {
  readonly #call: Codec<RuntimeCall>;
  readonly #extensions: readonly AnyExtension[];

  constructor(call: Codec<RuntimeCall>, extensions: readonly AnyExtension[]) {
    this.#call = call;
    this.#extensions = extensions;
  }

  /** Throws {@link ScaleError} on anything that is not exactly one extrinsic. */
  decode(bytes: Uint8Array): Extrinsic {
    return this.decodeCall(this.decodeHead(bytes));
  }

  /** Everything but the call, in a time that does not depend on the length. Throws {@link ScaleError}. */
  decodeHead(bytes: Uint8Array): ExtrinsicHead {
    const source = new Source(bytes);
    const tag = source.u8();
    const preamble = this.#decodePreamble(tag, source);
    return {
      version: tag === BARE_V5 || tag === GENERAL_V5 ? 5 : 4,
      preamble,
      callBytes: source.bytes(source.remaining),
      length: bytes.length + compactLength(bytes.length),
    };
  }

  /** Throws {@link ScaleError}, also where the call holds more calls or list items than an extrinsic may. */
  decodeCall(head: ExtrinsicHead): Extrinsic {
    const source = new Source(head.callBytes, 0, MAX_ITEMS);
    const call = this.#call.decodeFrom(source);
    if (source.remaining > 0) {
      throw new ScaleError('TRAILING_BYTES', `${source.remaining} bytes after the extrinsic's call`);
    }
    const refTime =
      PS_PER_BYTE * BigInt(head.length) +
      PS_PER_ITEM * BigInt(source.items) +
      PS_PER_CALL * BigInt(source.nestedValues);
    return { ...head, call, overhead: { refTime, proofSize: 0n } };
  }

  #decodePreamble(tag: number, source: Source): Preamble {
    switch (tag) {
      case BARE_V4:
      case BARE_V5:
        return { type: 'Bare' };
      case SIGNED_V4: {
        const address = multiAddress.decodeFrom(source);
        const signature = multiSignature.decodeFrom(source);
        return { type: 'Signed', address, signature, ...this.#decodeExtra(source) };
      }
      case GENERAL_V5: {
        const extensionVersion = source.u8();
        if (extensionVersion !== EXTENSION_VERSION) {
          throw new ScaleError('INVALID_VARIANT', `extension version ${extensionVersion} is not known`);
        }
        return { type: 'General', extensionVersion, ...this.#decodeExtra(source) };
      }
      default:
        throw new ScaleError('INVALID_VARIANT', `extrinsic format 0x${tag.toString(16)} is not known`);
    }
  }

  #decodeExtra(source: Source): { extra: readonly unknown[]; extraBytes: Uint8Array } {
    const start = source.offset;
    const extra = this.#extensions.map((each) => each.extra.decodeFrom(source));
    return { extra, extraBytes: source.since(start) };
  }

  /** A bare extrinsic, as inherents are. */
  encodeBare(call: RuntimeCall): Uint8Array {
    return encodeBare(this.#call, call);
  }

  /** What the signer of a version-4 extrinsic signs: call, extra, implicit; hashed when longer than 256 bytes. */
  signingPayload(env: Env, extrinsic: ExtrinsicHead, blockNumber: number): Uint8Array {
    const { preamble } = extrinsic;
    if (preamble.type === 'Bare') throw new Error('a bare extrinsic has no signing payload');
    const sink = new Sink(128);
    this.#extensions.forEach((each, i) => {
      each.implicit.encodeTo(sink, each.implicitOf(env, preamble.extra[i], blockNumber));
    });
    const parts = { call: extrinsic.callBytes, extra: preamble.extraBytes, implicit: sink.finish() };
    return signedMessage(env.host, parts);
  }
}

/** The account that an address stands for; undefined where it cannot be looked up (only `Id` exists here). */
export const lookup = (address: MultiAddress): AccountId | undefined =>
  address.type === 'Id' ? address.value : undefined;

/** Whether `who` signed `message`. For ecdsa the account is the blake2b-256 of the compressed key. */
export function verifySignature(
  host: Hashing & Signatures,
  signature: MultiSignature,
  message: Uint8Array,
  who: AccountId,
): boolean {
  switch (signature.type) {
    case 'Sr25519':
      return host.verifySr25519(signature.value, message, who);
    case 'Ed25519':
      return host.verifyEd25519(signature.value, message, who);
    case 'Ecdsa': {
      const key = host.recoverEcdsa(signature.value, host.blake2_256(message));
      return key !== undefined && equalBytes(host.blake2_256(key), who);
    }
  }
}

/** Length-prefixed, as extrinsics stand in block bodies and travel over JSON-RPC. */
export const withLength = (extrinsic: Uint8Array): Uint8Array => {
  const sink = new Sink(5);
  sink.compact(extrinsic.length);
  return concatBytes(sink.finish(), extrinsic);
};

/** Takes the length prefix off; throws {@link ScaleError} if it does not match. */
export const withoutLength = (bytes: Uint8Array): Uint8Array => {
  const source = new Source(bytes);
  const length = source.compact(0xffffffff);
  if (length !== source.remaining) {
    throw new ScaleError('TRAILING_BYTES', `length prefix says ${length}, ${source.remaining} bytes follow`);
  }
  return source.bytes(length);
};
