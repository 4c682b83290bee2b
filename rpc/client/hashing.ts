/** The hash functions of the host interface in JavaScript alone, for browsers and for short-lived commands. */
import { blake2b } from '@noble/hashes/blake2.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { keccak_256 } from '@noble/hashes/sha3.js';
import type { Hashing } from '../../runtime/host.ts';
import { twox } from '../../runtime/primitives/twox.ts';

export const hashing: Hashing = {
  blake2_128: (data) => blake2b(data, { dkLen: 16 }),
  blake2_256: (data) => blake2b(data, { dkLen: 32 }),
  twox64: (data) => twox(data, 64),
  twox128: (data) => twox(data, 128),
  twox256: (data) => twox(data, 256),
  keccak256: (data) => keccak_256(data),
  sha256: (data) => sha256(data),
};
