/** The runtime's host over the functions of the engine. */
import type { Host, LogLevel } from '../../../runtime/host.ts';
import { utf8 } from '../../../runtime/primitives/bytes.ts';
import { bytes, encode, vec } from '../../../runtime/primitives/scale/codec.ts';
import { engine } from './engine.ts';

/** `sp_core::LogLevel`. */
const LEVELS: Readonly<Record<LogLevel, number>> = { error: 1, warn: 2, info: 3, debug: 4, trace: 5 };
const items = vec(bytes());

const littleEndian = (value: number): Uint8Array =>
  Uint8Array.of(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24);
const readU32 = (data: Uint8Array, at: number): number =>
  (data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24)) >>> 0;

const isSigned = (signature: Uint8Array, key: Uint8Array): boolean => signature.length === 64 && key.length === 32;

/** Functions that cross as they are: bytes in, bytes or nothing or a truth value out. */
const direct = engine as unknown as Host;

export const host: Host = {
  get: direct.get,
  put: direct.put,
  delete: direct.delete,
  exists: direct.exists,
  nextKey: direct.nextKey,
  clearPrefix(prefix, limit) {
    const encoded = limit === undefined ? Uint8Array.of(0) : Uint8Array.of(1, ...littleEndian(limit));
    const result = engine.clearPrefix(prefix, encoded) as Uint8Array;
    return { removed: readU32(result, 1), more: result[0] === 1 };
  },
  append: direct.append,
  beginTransaction: direct.beginTransaction,
  commitTransaction: direct.commitTransaction,
  rollbackTransaction: direct.rollbackTransaction,
  storageRoot: direct.storageRoot,
  blake2_128: direct.blake2_128,
  blake2_256: direct.blake2_256,
  twox64: direct.twox64,
  twox128: direct.twox128,
  twox256: direct.twox256,
  keccak256: direct.keccak256,
  sha256: direct.sha256,
  // The host reads 64 and 32 bytes wherever it is pointed to: other lengths must not reach it.
  verifySr25519: (signature, message, key) =>
    isSigned(signature, key) && (engine.verifySr25519(signature, message, key) as boolean),
  verifyEd25519: (signature, message, key) =>
    isSigned(signature, key) && (engine.verifyEd25519(signature, message, key) as boolean),
  recoverEcdsa(signature, messageHash) {
    if (signature.length !== 65 || messageHash.length !== 32) return undefined;
    const result = engine.recoverEcdsa(signature, messageHash) as Uint8Array;
    return result[0] === 0 ? result.slice(1) : undefined;
  },
  orderedTrieRoot: (list) => engine.orderedTrieRoot(encode(items, [...list])) as Uint8Array,
  submitTransaction: (extrinsic) => (engine.submitTransaction(extrinsic) as Uint8Array)[0] === 0,
  log: (level, target, message) => {
    engine.log(LEVELS[level], utf8(target), utf8(message));
  },
};
