/**
 * Signature checks of the host interface, and a memory of their outcomes: what a worker thread has checked when a
 * transaction came in need not be checked again when the transaction is validated, put into a block and imported.
 */
import { randomBytes } from 'node:crypto';
import sodium from 'sodium-native';
import type { Signatures } from '../../runtime/host.ts';
import { createRecoverEcdsa } from './ecdsa.ts';
import { verifyEd25519 } from './ed25519.ts';
import { createSr25519Verify } from './sr25519.ts';

/** Compiles the WebAssembly part that nearly every transaction needs (about a millisecond). */
export async function createSignatures(): Promise<Signatures> {
  return { verifySr25519: createSr25519Verify(), verifyEd25519, recoverEcdsa: createRecoverEcdsa() };
}

export type Scheme = 'Sr25519' | 'Ed25519' | 'Ecdsa';

/** One question to {@link Signatures}. For `Ecdsa`, `message` is the 32-byte hash and `key` is empty. */
export interface Question {
  readonly scheme: Scheme;
  readonly signature: Uint8Array;
  readonly message: Uint8Array;
  readonly key: Uint8Array;
}

/** Whether the signature holds; for `Ecdsa` the key that made it. */
export type Answer = boolean | Uint8Array | undefined;

export function ask(signatures: Signatures, { scheme, signature, message, key }: Question): Answer {
  switch (scheme) {
    case 'Sr25519':
      return signatures.verifySr25519(signature, message, key);
    case 'Ed25519':
      return signatures.verifyEd25519(signature, message, key);
    case 'Ecdsa':
      return signatures.recoverEcdsa(signature, message);
  }
}

const SCHEME_BYTE = { Sr25519: 1, Ed25519: 2, Ecdsa: 3 } as const;
/** Longer messages are hashed first. */
const MAX_DIRECT = 512;

/**
 * Short names of questions: BLAKE2b-128 under a key that only this process knows, so that nobody can look for two
 * questions of one name.
 */
function namer(): (scheme: Scheme, signature: Uint8Array, message: Uint8Array, key: Uint8Array) => string {
  const secret = randomBytes(32);
  const input = Buffer.from(new ArrayBuffer(256 + MAX_DIRECT));
  const digest = Buffer.from(new ArrayBuffer(16));
  const wide = Buffer.from(new ArrayBuffer(32));
  return (scheme, signature, message, key) => {
    let text = message;
    if (message.length > MAX_DIRECT) {
      sodium.crypto_generichash(wide, message, secret);
      text = wide;
    }
    let at = 0;
    input[at++] = SCHEME_BYTE[scheme];
    input[at++] = signature.length;
    input[at++] = key.length;
    input[at++] = text === message ? 0 : 1;
    for (const part of [signature, key, text]) {
      input.set(part, at);
      at += part.length;
    }
    sodium.crypto_generichash(digest, input.subarray(0, at), secret);
    return digest.toString('latin1');
  };
}

export interface SignatureCacheOptions {
  /** Outcomes kept at least; up to twice as many may be (about 150 bytes each). */
  readonly capacity?: number;
}

/** {@link Signatures} that remembers its last answers, right and wrong ones. */
export class SignatureCache implements Signatures {
  readonly #inner: Signatures;
  readonly #capacity: number;
  readonly #name = namer();
  /** Two generations: when the young one is full it becomes the old one, and what was old is forgotten. */
  #young = new Map<string, Answer>();
  #old = new Map<string, Answer>();
  #hits = 0;
  #misses = 0;

  constructor(inner: Signatures, { capacity = 65_536 }: SignatureCacheOptions = {}) {
    this.#inner = inner;
    this.#capacity = capacity;
  }

  get statistics(): { readonly hits: number; readonly misses: number; readonly size: number } {
    return { hits: this.#hits, misses: this.#misses, size: this.#young.size + this.#old.size };
  }

  verifySr25519(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
    if (signature.length !== 64 || publicKey.length !== 32) return false;
    const name = this.#name('Sr25519', signature, message, publicKey);
    return this.#known(name, () => this.#inner.verifySr25519(signature, message, publicKey)) === true;
  }

  verifyEd25519(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
    if (signature.length !== 64 || publicKey.length !== 32) return false;
    const name = this.#name('Ed25519', signature, message, publicKey);
    return this.#known(name, () => this.#inner.verifyEd25519(signature, message, publicKey)) === true;
  }

  recoverEcdsa(signature: Uint8Array, messageHash: Uint8Array): Uint8Array | undefined {
    if (signature.length !== 65 || messageHash.length !== 32) return undefined;
    const name = this.#name('Ecdsa', signature, messageHash, NO_KEY);
    const key = this.#known(name, () => this.#inner.recoverEcdsa(signature, messageHash));
    return key instanceof Uint8Array ? key.slice() : undefined;
  }

  #known(name: string, find: () => Answer): Answer {
    const found = this.recall(name);
    if (found !== undefined) {
      this.#hits++;
      return found.answer;
    }
    this.#misses++;
    const answer = find();
    this.remember(name, answer);
    return answer;
  }

  /** The name under which a well-formed question is remembered; undefined for one whose answer is no anyway. */
  nameOf({ scheme, signature, message, key }: Question): string | undefined {
    const ecdsa = scheme === 'Ecdsa';
    if (signature.length !== (ecdsa ? 65 : 64) || key.length !== (ecdsa ? 0 : 32)) return undefined;
    return this.#name(scheme, signature, message, key);
  }

  recall(name: string): { readonly answer: Answer } | undefined {
    if (this.#young.has(name)) return { answer: this.#young.get(name) };
    if (!this.#old.has(name)) return undefined;
    const answer = this.#old.get(name);
    this.remember(name, answer);
    return { answer };
  }

  remember(name: string, answer: Answer): void {
    if (this.#young.size >= this.#capacity) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(name, answer);
  }
}

const NO_KEY = new Uint8Array(0);
