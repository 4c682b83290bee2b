/**
 * The functions between the runtime's `Host` and Substrate's host API, as data: the guest calls them by number, the glue passes
 * them on under Substrate's name. (Polkadot specification, appendix B.)
 */

/** Parameters: `bytes` is pointer and length in one i64, `pointer` the address of bytes of known length, `int` an i32. */
export type Parameter = 'bytes' | 'pointer' | 'int';
/**
 * Results: `optional` is an encoded `Option<Vec<u8>>` behind pointer and length, `bytes` raw bytes behind the same, a number
 * the length of bytes behind a pointer, `flag` an i32 that is a truth value.
 */
export type Result = 'nothing' | 'flag' | 'optional' | 'bytes' | number;

export interface HostFunction {
  readonly extern: string;
  readonly parameters: readonly Parameter[];
  readonly result: Result;
  /** Parameters behind the guest's: constants of type i32. */
  readonly constants?: readonly number[];
}

const define = (
  extern: string,
  parameters: readonly Parameter[],
  result: Result,
  ...constants: readonly number[]
): HostFunction => ({ extern, parameters, result, ...(constants.length > 0 && { constants }) });

export const HOST_FUNCTIONS = {
  get: define('ext_storage_get_version_1', ['bytes'], 'optional'),
  put: define('ext_storage_set_version_1', ['bytes', 'bytes'], 'nothing'),
  delete: define('ext_storage_clear_version_1', ['bytes'], 'nothing'),
  exists: define('ext_storage_exists_version_1', ['bytes'], 'flag'),
  nextKey: define('ext_storage_next_key_version_1', ['bytes'], 'optional'),
  clearPrefix: define('ext_storage_clear_prefix_version_2', ['bytes', 'bytes'], 'bytes'),
  append: define('ext_storage_append_version_1', ['bytes', 'bytes'], 'nothing'),
  beginTransaction: define('ext_storage_start_transaction_version_1', [], 'nothing'),
  commitTransaction: define('ext_storage_commit_transaction_version_1', [], 'nothing'),
  rollbackTransaction: define('ext_storage_rollback_transaction_version_1', [], 'nothing'),
  storageRoot: define('ext_storage_root_version_2', ['int'], 'bytes'),
  blake2_128: define('ext_hashing_blake2_128_version_1', ['bytes'], 16),
  blake2_256: define('ext_hashing_blake2_256_version_1', ['bytes'], 32),
  twox64: define('ext_hashing_twox_64_version_1', ['bytes'], 8),
  twox128: define('ext_hashing_twox_128_version_1', ['bytes'], 16),
  twox256: define('ext_hashing_twox_256_version_1', ['bytes'], 32),
  keccak256: define('ext_hashing_keccak_256_version_1', ['bytes'], 32),
  sha256: define('ext_hashing_sha2_256_version_1', ['bytes'], 32),
  verifySr25519: define('ext_crypto_sr25519_verify_version_2', ['pointer', 'bytes', 'pointer'], 'flag'),
  verifyEd25519: define('ext_crypto_ed25519_verify_version_1', ['pointer', 'bytes', 'pointer'], 'flag'),
  recoverEcdsa: define('ext_crypto_secp256k1_ecdsa_recover_compressed_version_2', ['pointer', 'pointer'], 'bytes'),
  // The last parameter is the state version: roots of lists of extrinsics are of version 0.
  orderedTrieRoot: define('ext_trie_blake2_256_ordered_root_version_2', ['bytes'], 32, 0),
  submitTransaction: define('ext_offchain_submit_transaction_version_1', ['bytes'], 'bytes'),
  log: define('ext_logging_log_version_1', ['int', 'bytes', 'bytes'], 'nothing'),
} as const satisfies Readonly<Record<string, HostFunction>>;

/** What the glue itself asks of the host. */
export const MEMORY_FUNCTIONS = [
  'ext_allocator_malloc_version_1',
  'ext_allocator_free_version_1',
  'ext_panic_handler_abort_on_panic_version_1',
] as const;

export type HostFunctionName = keyof typeof HOST_FUNCTIONS;
export const HOST_FUNCTION_NAMES = Object.keys(HOST_FUNCTIONS) as HostFunctionName[];
/** Numbers behind the host's functions: what the engine lacks and the glue does by itself. */
export const TEXT_TO_BYTES = HOST_FUNCTION_NAMES.length;
export const BYTES_TO_TEXT = TEXT_TO_BYTES + 1;
/** Numbers cross as names of one byte: 48 is `0`. */
export const FIRST_LETTER = 48;
