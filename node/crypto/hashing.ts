/** The hash functions of the host interface, on native code where the hot paths are. */
import { hash as nodeHash } from 'node:crypto';
import { keccak_256 } from '@noble/hashes/sha3.js';
import sodium from 'sodium-native';
import type { Hashing } from '../../runtime/host.ts';
import { twox } from '../../runtime/primitives/twox.ts';

/** Inputs up to this many bytes go through memory that native code already knows. */
const SMALL = 256;

/**
 * BLAKE2b. Native code can only see memory outside of the JavaScript heap, and moving a small array out of the heap
 * costs several times what hashing it does; so small inputs and the digest pass through buffers that stay outside.
 */
function blake2b(): (data: Uint8Array, length: 16 | 32) => Uint8Array {
  const input = new Uint8Array(new ArrayBuffer(SMALL));
  const inputs = Array.from({ length: SMALL + 1 }, (_, length) => input.subarray(0, length));
  const output = new Uint8Array(new ArrayBuffer(32));
  const outputs = { 16: output.subarray(0, 16), 32: output };
  return (data, length) => {
    const digest = outputs[length];
    if (data.length <= SMALL) {
      input.set(data);
      sodium.crypto_generichash(digest, inputs[data.length]!);
    } else {
      sodium.crypto_generichash(digest, data);
    }
    return digest.slice();
  };
}

export function createHashing(): Hashing {
  const blake2 = blake2b();
  return {
    blake2_128: (data) => blake2(data, 16),
    blake2_256: (data) => blake2(data, 32),
    twox64: (data) => twox(data, 64),
    twox128: (data) => twox(data, 128),
    twox256: (data) => twox(data, 256),
    keccak256: (data) => keccak_256(data),
    sha256: (data) => new Uint8Array(nodeHash('sha256', data, 'buffer')),
  };
}
