/** Substrate's host functions (`env.ext_*`) over the runtime's `Host`. (Polkadot specification, appendix B.) */
import type { Host, LogLevel } from '../../runtime/host.ts';
import { concatBytes, fromUtf8 } from '../../runtime/primitives/bytes.ts';
import { bytes, decode, encode, option, struct, u8, u32, vec } from '../../runtime/primitives/scale/codec.ts';
import type { FreeingBumpAllocator } from './allocator.ts';

/** What a runtime says of itself when it stops for an error. */
export class RuntimePanic extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'RuntimePanic';
  }
}

/** The memory of a running instance, as host functions use it. */
export interface GuestMemory {
  readonly memory: WebAssembly.Memory;
  readonly allocator: FreeingBumpAllocator;
}

const LEVELS: readonly LogLevel[] = ['error', 'warn', 'info', 'debug', 'trace'];
const storedValue = option(bytes());
const lists = vec(bytes());
const limit = option(u32);
const cleared = struct({ more: u8, removed: u32 });

/** `EcdsaVerifyError::BadSignature`. */
const BAD_SIGNATURE = Uint8Array.of(1, 2);
const OK = Uint8Array.of(0);
const FAILED = Uint8Array.of(1);

/**
 * The functions; `guest` is asked for the memory when one is called. Lengths and addresses are the guest's: what lies outside of
 * its memory throws a `RangeError`, which ends the call.
 */
export function hostImports(host: Host, guest: () => GuestMemory): WebAssembly.ModuleImports {
  const view = (at: number, length: number): Uint8Array =>
    new Uint8Array(guest().memory.buffer, at >>> 0, length >>> 0);
  /** A copy: what the guest points to changes under it. */
  const taken = (fat: bigint): Uint8Array =>
    view(Number(fat & 0xffff_ffffn), Number((fat >> 32n) & 0xffff_ffffn)).slice();
  const fixed = (at: number, length: number): Uint8Array => view(at, length).slice();
  const put = (data: Uint8Array): number => {
    const at = guest().allocator.allocate(data.length);
    view(at, data.length).set(data);
    return at;
  };
  const fat = (data: Uint8Array): bigint => BigInt.asIntN(64, (BigInt(data.length) << 32n) | BigInt(put(data)));
  const optional = (value: Uint8Array | undefined): bigint => fat(encode(storedValue, value));
  const text = (at: bigint): string => fromUtf8(taken(at));

  // Transactions that this runtime began: it must not end those of others.
  let open = 0;
  const end = (how: () => void): void => {
    if (open === 0) throw new RuntimePanic('the runtime ends a storage transaction that it has not begun');
    open--;
    how();
  };

  return {
    ext_storage_get_version_1: (key: bigint) => optional(host.get(taken(key))),
    ext_storage_set_version_1: (key: bigint, value: bigint) => host.put(taken(key), taken(value)),
    ext_storage_clear_version_1: (key: bigint) => host.delete(taken(key)),
    ext_storage_exists_version_1: (key: bigint) => (host.exists(taken(key)) ? 1 : 0),
    ext_storage_next_key_version_1: (key: bigint) => optional(host.nextKey(taken(key))),
    ext_storage_clear_prefix_version_2: (prefix: bigint, most: bigint) => {
      const { removed, more } = host.clearPrefix(taken(prefix), decode(limit, taken(most)));
      return fat(encode(cleared, { more: more ? 1 : 0, removed }));
    },
    ext_storage_append_version_1: (key: bigint, item: bigint) => host.append(taken(key), taken(item)),
    ext_storage_start_transaction_version_1: () => {
      open++;
      host.beginTransaction();
    },
    ext_storage_commit_transaction_version_1: () => end(() => host.commitTransaction()),
    ext_storage_rollback_transaction_version_1: () => end(() => host.rollbackTransaction()),
    ext_storage_root_version_2: (version: number) => {
      if (open > 0)
        throw new RuntimePanic('the runtime asks for the root of the state inside of a storage transaction');
      return fat(host.storageRoot(version === 0 ? 0 : 1));
    },
    ext_hashing_blake2_128_version_1: (data: bigint) => put(host.blake2_128(taken(data))),
    ext_hashing_blake2_256_version_1: (data: bigint) => put(host.blake2_256(taken(data))),
    ext_hashing_twox_64_version_1: (data: bigint) => put(host.twox64(taken(data))),
    ext_hashing_twox_128_version_1: (data: bigint) => put(host.twox128(taken(data))),
    ext_hashing_twox_256_version_1: (data: bigint) => put(host.twox256(taken(data))),
    ext_hashing_keccak_256_version_1: (data: bigint) => put(host.keccak256(taken(data))),
    ext_hashing_sha2_256_version_1: (data: bigint) => put(host.sha256(taken(data))),
    ext_crypto_sr25519_verify_version_2: (signature: number, message: bigint, key: number) =>
      host.verifySr25519(fixed(signature, 64), taken(message), fixed(key, 32)) ? 1 : 0,
    ext_crypto_ed25519_verify_version_1: (signature: number, message: bigint, key: number) =>
      host.verifyEd25519(fixed(signature, 64), taken(message), fixed(key, 32)) ? 1 : 0,
    ext_crypto_secp256k1_ecdsa_recover_compressed_version_2: (signature: number, hash: number) => {
      const key = host.recoverEcdsa(fixed(signature, 65), fixed(hash, 32));
      return fat(key === undefined ? BAD_SIGNATURE : concatBytes(OK, key));
    },
    ext_trie_blake2_256_ordered_root_version_2: (items: bigint, version: number) => {
      if (version !== 0) throw new RuntimePanic('only roots of state version 0 are made of lists');
      return put(host.orderedTrieRoot(decode(lists, taken(items))));
    },
    ext_offchain_submit_transaction_version_1: (extrinsic: bigint) =>
      fat(host.submitTransaction(taken(extrinsic)) ? OK : FAILED),
    ext_logging_log_version_1: (level: number, target: bigint, message: bigint) =>
      host.log(LEVELS[level - 1] ?? 'error', text(target), text(message)),
    ext_allocator_malloc_version_1: (size: number) => guest().allocator.allocate(size >>> 0),
    ext_allocator_free_version_1: (at: number) => guest().allocator.release(at >>> 0),
    ext_panic_handler_abort_on_panic_version_1: (message: bigint) => {
      throw new RuntimePanic(text(message));
    },
  };
}
