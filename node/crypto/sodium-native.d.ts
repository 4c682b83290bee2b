/** The part of sodium-native that this node uses; the package has no types of its own. Wrappers throw on a non-zero status. */
declare module 'sodium-native' {
  interface Sodium {
    readonly crypto_sign_SEEDBYTES: number;
    readonly crypto_pwhash_ALG_ARGON2ID13: number;

    /** BLAKE2b with an output of 16 to 64 bytes, optionally keyed (16 to 64 bytes). */
    crypto_generichash(output: Uint8Array, input: Uint8Array, key?: Uint8Array): void;
    crypto_hash_sha512(output: Uint8Array, input: Uint8Array): void;

    crypto_sign_seed_keypair(publicKey: Uint8Array, secretKey: Uint8Array, seed: Uint8Array): void;
    crypto_sign_detached(signature: Uint8Array, message: Uint8Array, secretKey: Uint8Array): void;
    crypto_sign_verify_detached(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;

    crypto_core_ed25519_add(result: Uint8Array, p: Uint8Array, q: Uint8Array): void;
    crypto_core_ed25519_scalar_add(result: Uint8Array, x: Uint8Array, y: Uint8Array): void;
    crypto_core_ed25519_scalar_reduce(result: Uint8Array, scalar: Uint8Array): void;
    crypto_scalarmult_ed25519_noclamp(result: Uint8Array, scalar: Uint8Array, point: Uint8Array): void;
    crypto_scalarmult_ed25519_base_noclamp(result: Uint8Array, scalar: Uint8Array): void;

    crypto_aead_xchacha20poly1305_ietf_encrypt(
      ciphertext: Uint8Array,
      message: Uint8Array,
      additionalData: Uint8Array | null,
      secretNonce: null,
      nonce: Uint8Array,
      key: Uint8Array,
    ): number;
    crypto_aead_xchacha20poly1305_ietf_decrypt(
      message: Uint8Array,
      secretNonce: null,
      ciphertext: Uint8Array,
      additionalData: Uint8Array | null,
      nonce: Uint8Array,
      key: Uint8Array,
    ): number;

    crypto_secretbox_easy(ciphertext: Uint8Array, message: Uint8Array, nonce: Uint8Array, key: Uint8Array): void;
    /** False for what was not sealed under this key. */
    crypto_secretbox_open_easy(
      message: Uint8Array,
      ciphertext: Uint8Array,
      nonce: Uint8Array,
      key: Uint8Array,
    ): boolean;

    randombytes_buf(buffer: Uint8Array): void;
    sodium_memzero(buffer: Uint8Array): void;
  }
  const sodium: Sodium;
  // biome-ignore lint/style/noDefaultExport: the package is CommonJS.
  export default sodium;
}
