import { ed25519 } from '@noble/curves/ed25519.js';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { blake2AsU8a, sr25519PairFromSeed, sr25519Sign } from '@polkadot/util-crypto';
import t from 'tap';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { createSignatures, SignatureCache } from '../../../node/crypto/signatures.ts';
import { Verifier, VerifierError, type VerifierOptions } from '../../../node/crypto/verifier.ts';
import type { SignatureCheck } from '../../../runtime/executive/executive.ts';
import type { Signatures } from '../../../runtime/host.ts';
import { concatBytes, utf8 } from '../../../runtime/primitives/bytes.ts';

const hashing = createHashing();
const plain = await createSignatures();

/** Of each scheme in turn; every fifth one is wrong. */
function checks(count: number, label: string): { check: SignatureCheck; good: boolean }[] {
  const secret = new Uint8Array(32).fill(11);
  const sr = sr25519PairFromSeed(secret);
  return Array.from({ length: count }, (_, n) => {
    const good = n % 5 !== 4;
    const signed = utf8(`${label} ${n}`);
    const message = good ? signed : utf8(`${label} ${n}!`);
    switch (n % 3) {
      case 0: {
        const value = sr25519Sign(signed, sr);
        return { good, check: { signature: { type: 'Sr25519', value }, message, signer: sr.publicKey } };
      }
      case 1: {
        const value = ed25519.sign(signed, secret);
        const signer = ed25519.getPublicKey(secret);
        return { good, check: { signature: { type: 'Ed25519', value }, message, signer } };
      }
      default: {
        const made = secp256k1.sign(blake2AsU8a(signed), secret, { prehash: false, format: 'recovered' });
        const value = concatBytes(made.subarray(1), made.subarray(0, 1));
        const signer = blake2AsU8a(secp256k1.getPublicKey(secret, true));
        return { good, check: { signature: { type: 'Ecdsa', value }, message, signer } };
      }
    }
  });
}

/** The runtime's own question about the same signature. */
function askAgain(signatures: Signatures, { signature, message, signer }: SignatureCheck): void {
  if (signature.type === 'Sr25519') signatures.verifySr25519(signature.value, message, signer);
  else if (signature.type === 'Ed25519') signatures.verifyEd25519(signature.value, message, signer);
  else signatures.recoverEcdsa(signature.value, hashing.blake2_256(message));
}

function setUp(options: Partial<VerifierOptions> = {}): { verifier: Verifier; cache: SignatureCache } {
  const cache = new SignatureCache(plain);
  return { cache, verifier: new Verifier({ signatures: cache, hashing, ...options }) };
}

for (const threads of [2, 0]) {
  t.test(`${threads} threads: the right answers, in order, and in the cache`, async (t) => {
    const { verifier, cache } = setUp({ threads });
    t.teardown(() => verifier.close());
    const all = checks(300, `with ${threads}`);
    const parts = [all.slice(0, 1), all.slice(1, 40), all.slice(40)];
    const answers = await Promise.all(parts.map((part) => verifier.verify(part.map(({ check }) => check))));
    t.strictSame(
      answers.flat(),
      all.map(({ good }) => good),
    );
    t.equal(verifier.load.pending, 0);
    const { misses } = cache.statistics;
    for (const { check } of all) askAgain(cache, check);
    t.equal(cache.statistics.misses, misses, 'the runtime finds every answer in the cache');
    t.strictSame(await verifier.verify([]), []);
    const [malformed] = await verifier.verify([
      { signature: { type: 'Sr25519', value: new Uint8Array(3) }, message: utf8(''), signer: new Uint8Array(32) },
    ]);
    t.equal(malformed, false);
  });
}

t.test('too many checks at once are refused, those under way are not harmed', async (t) => {
  const { verifier } = setUp({ threads: 1, maxPending: 50 });
  t.teardown(() => verifier.close());
  const first = verifier.verify(checks(60, 'first').map(({ check }) => check));
  await t.rejects(verifier.verify(checks(3, 'second').map(({ check }) => check)), { code: 'OVERLOADED' });
  t.equal((await first).length, 60);
  t.equal((await verifier.verify(checks(3, 'third').map(({ check }) => check))).length, 3);
});

t.test('closing rejects what waits and ends the threads', async (t) => {
  const controller = new AbortController();
  const { verifier } = setUp({ threads: 1, signal: controller.signal });
  const waiting = verifier.verify(checks(500, 'closing').map(({ check }) => check));
  const rejected = t.rejects(waiting, { code: 'CLOSED' });
  controller.abort();
  await rejected;
  t.strictSame(verifier.load, { pending: 0, threads: 0 });
  await t.rejects(verifier.verify([]), new VerifierError('CLOSED', 'the signature verifier is closed'));
  await verifier.close();
});
