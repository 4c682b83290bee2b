/**
 * Signature checks and hashes a second, and how long a check takes when little is going on.
 * `node test/bench/crypto.ts`
 */
import { performance } from 'node:perf_hooks';
import { ed25519 } from '@noble/curves/ed25519.js';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { sr25519PairFromSeed, sr25519Sign } from '@polkadot/util-crypto';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures, SignatureCache } from '../../node/crypto/signatures.ts';
import { Verifier } from '../../node/crypto/verifier.ts';
import type { SignatureCheck } from '../../runtime/executive/executive.ts';
import { concatBytes } from '../../runtime/primitives/bytes.ts';
import { report } from './support/report.ts';

const hashing = createHashing();
const signatures = await createSignatures();

function perSecond(run: () => void, ms = 1_000): number {
  for (let i = 0; i < 20; i++) run();
  const start = performance.now();
  let runs = 0;
  while (performance.now() - start < ms) {
    for (let i = 0; i < 16; i++) run();
    runs += 16;
  }
  return Math.round((runs / (performance.now() - start)) * 1_000);
}

const figures: Record<string, number> = {};
const seed = new Uint8Array(32).fill(7);
const message = new Uint8Array(130).fill(3);
const pair = sr25519PairFromSeed(seed);
const srSignature = sr25519Sign(message, pair);
const edSignature = ed25519.sign(message, seed);
const edKey = ed25519.getPublicKey(seed);
const wrong = edSignature.slice();
wrong[40]! ^= 1;
const ecHash = hashing.blake2_256(message);
const ec = secp256k1.sign(ecHash, seed, { prehash: false, format: 'recovered' });
const ecSignature = concatBytes(ec.subarray(1), ec.subarray(0, 1));

figures['sr25519 verify, one core'] = perSecond(() => signatures.verifySr25519(srSignature, message, pair.publicKey));
figures['ed25519 verify, good'] = perSecond(() => signatures.verifyEd25519(edSignature, message, edKey));
figures['ed25519 verify, bad (ZIP-215 equation)'] = perSecond(() => signatures.verifyEd25519(wrong, message, edKey));
figures['ecdsa recover'] = perSecond(() => signatures.recoverEcdsa(ecSignature, ecHash));
const cache = new SignatureCache(signatures);
figures['sr25519 verify, remembered'] = perSecond(() => cache.verifySr25519(srSignature, message, pair.publicKey));
const short = new Uint8Array(32).fill(1);
figures['blake2b-256 of 32 bytes'] = perSecond(() => hashing.blake2_256(short));
figures['blake2b-256 of 130 bytes'] = perSecond(() => hashing.blake2_256(message));
figures['twox64 of 32 bytes'] = perSecond(() => hashing.twox64(short));
figures['twox128 of 16 bytes'] = perSecond(() => hashing.twox128(short.subarray(16)));

let serial = 0;
const fresh = (): SignatureCheck => {
  const text = new Uint8Array(130);
  new DataView(text.buffer).setUint32(0, ++serial);
  const value = sr25519Sign(text, pair);
  return { signature: { type: 'Sr25519', value }, message: text, signer: pair.publicKey };
};

for (const threads of [1, 2]) {
  const verifier = new Verifier({ signatures: new SignatureCache(signatures), hashing, threads });
  await verifier.verify([fresh()]);

  const many = Array.from({ length: 12_000 }, fresh);
  const cpuBefore = performance.eventLoopUtilization();
  const start = performance.now();
  await verifier.verify(many);
  figures[`sr25519 verify, ${threads} thread(s)`] = Math.round((many.length / (performance.now() - start)) * 1_000);
  const { utilization } = performance.eventLoopUtilization(cpuBefore);
  figures[`… main thread busy, % (${threads})`] = Math.round(utilization * 100);

  const times: number[] = [];
  for (let i = 0; i < 300; i++) {
    const check = fresh();
    const from = performance.now();
    await verifier.verify([check]);
    times.push(performance.now() - from);
  }
  times.sort((a, b) => a - b);
  figures[`one at a time, median µs (${threads})`] = Math.round(times[150]! * 1_000);
  figures[`one at a time, p99 µs (${threads})`] = Math.round(times[297]! * 1_000);
  await verifier.close();
}

await report(
  'crypto',
  Object.entries(figures).map(([what, value]) => ({ what, value, unit: '' })),
);
