import { readFileSync } from 'node:fs';
import { ed25519 } from '@noble/curves/ed25519.js';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { sr25519PairFromSeed, sr25519Sign } from '@polkadot/util-crypto';
import { sr25519_sign } from '@polkadot-labs/schnorrkel-wasm';
import { __tests as scureTests, verify as scureVerify } from '@scure/sr25519';
import t from 'tap';
import { createSignatures, SignatureCache } from '../../../node/crypto/signatures.ts';
import { concatBytes, fromHex, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';

const signatures = await createSignatures();
const GROUP_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const bytesOf = (value: bigint, length: number) => fromHex(value.toString(16).padStart(2 * length, '0'));
const littleEndian = (value: bigint, length: number) => bytesOf(value, length).reverse();

/** The same numbers every time, `0 <= n < bound`. */
function randomly(seed: number): (bound: number) => number {
  return (bound) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * bound);
  };
}

t.test('sr25519: what others sign is accepted, what is changed is not', async (t) => {
  const merlin = new scureTests.Merlin('test protocol');
  merlin.appendMessage('some label', utf8('some data'));
  t.equal(
    toHex(merlin.challengeBytes('challenge', 32)),
    '0xd5a21972d0d5fe320c0d263fac7fffb8145aa640af6e9bca177c03c7efcf0615',
    'the oracle builds transcripts as the published vector wants them',
  );
  const random = randomly(1);
  for (let n = 0; n < 24; n++) {
    const pair = sr25519PairFromSeed(new Uint8Array(32).fill(n));
    const message = new Uint8Array(n * n).map(() => random(256));
    const made = n % 2 === 0 ? sr25519Sign(message, pair) : sr25519_sign(pair.publicKey, pair.secretKey, message);
    t.ok(signatures.verifySr25519(made, message, pair.publicKey), `signature ${n}`);
    t.ok(scureVerify(message, made, pair.publicKey), `signature ${n} for the oracle`);
    const parts = [made.slice(), concatBytes(message, Uint8Array.of(0)), pair.publicKey.slice()] as const;
    const changed = parts[n % 3]!;
    changed[random(changed.length)]! ^= 1 << random(8);
    t.notOk(signatures.verifySr25519(...parts), `signature ${n}, changed`);
  }
});

t.test('sr25519: malformed input is answered, never thrown or leaked', async (t) => {
  const pair = sr25519PairFromSeed(new Uint8Array(32).fill(9));
  const message = utf8('message');
  const good = sr25519Sign(message, pair);
  const unmarked = good.slice();
  unmarked[63]! &= 0x7f;
  const tooLarge = good.slice();
  const s = BigInt(
    toHex(
      good
        .slice(32)
        .map((byte, i) => (i === 31 ? byte & 0x7f : byte))
        .reverse(),
    ),
  );
  tooLarge.set(littleEndian(s + GROUP_ORDER, 32), 32);
  tooLarge[63]! |= 0x80;
  const cases: [string, Uint8Array, Uint8Array][] = [
    ['empty signature', new Uint8Array(0), pair.publicKey],
    ['short signature', good.subarray(1), pair.publicKey],
    ['long signature', concatBytes(good, good), pair.publicKey],
    ['without schnorrkel mark', unmarked, pair.publicKey],
    ['scalar not reduced', tooLarge, pair.publicKey],
    ['short key', good, pair.publicKey.subarray(1)],
    ['key that is no point', good, new Uint8Array(32).fill(0xff)],
    ['key zero', good, new Uint8Array(32)],
    ['R that is no point', concatBytes(new Uint8Array(32).fill(0xff), good.subarray(32)), pair.publicKey],
  ];
  for (const [name, signature, key] of cases) t.equal(signatures.verifySr25519(signature, message, key), false, name);

  const noPoint = new Uint8Array(32).fill(0xff);
  for (let i = 0; i < 500; i++) signatures.verifySr25519(good, message, noPoint);
  globalThis.gc?.();
  const before = process.memoryUsage.rss();
  for (let i = 0; i < 50_000; i++) signatures.verifySr25519(good, message, noPoint);
  t.ok(process.memoryUsage.rss() - before < 100e6, 'keys that are no points do not fill the memory');
  t.ok(signatures.verifySr25519(good, message, pair.publicKey), 'and good signatures are still accepted');
});

t.test('ed25519: the 196 small-order cases of ZIP-215', async (t) => {
  const { cases } = JSON.parse(readFileSync(new URL('../../vectors/ed25519-zip215.json', import.meta.url), 'utf8')) as {
    cases: { publicKey: string; signature: string; message: string; valid: boolean }[];
  };
  t.equal(cases.length, 196);
  for (const { publicKey, signature, message, valid } of cases) {
    const answer = signatures.verifyEd25519(fromHex(signature), fromHex(message), fromHex(publicKey));
    t.equal(answer, valid, `${publicKey} ${signature}`);
  }
});

t.test('ed25519: keys and commitments with a torsion part, as noble decides by ZIP-215', async (t) => {
  const { Point } = ed25519;
  const random = randomly(2);
  const eighths = [Point.ZERO];
  const generator = Point.fromHex('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a');
  for (let i = 1; i < 8; i++) eighths.push(eighths[i - 1]!.add(generator));
  t.ok(generator.multiplyUnsafe(8n).equals(Point.ZERO), 'a point of order eight');
  let accepted = 0;
  for (let n = 0; n < 160; n++) {
    // S = r + k·a for R = r·B + T1 and A = a·B + T2 satisfies the cofactored equation, whatever T1 and T2 are.
    const a = BigInt(1 + random(2 ** 31));
    const r = BigInt(1 + random(2 ** 31));
    const A = Point.BASE.multiply(a).add(eighths[random(8)]!);
    const R = Point.BASE.multiply(r).add(eighths[random(8)]!);
    const message = utf8(`message ${n}`);
    const k = ed25519.Point.Fn.create(
      BigInt(toHex((await sha512(concatBytes(R.toBytes(), A.toBytes(), message))).reverse())) % GROUP_ORDER,
    );
    const S = (r + k * a + (n % 4 === 3 ? 1n : 0n)) % GROUP_ORDER;
    const signature = concatBytes(R.toBytes(), littleEndian(n % 16 === 0 ? S + GROUP_ORDER : S, 32));
    const expected = ed25519.verify(signature, message, A.toBytes(), { zip215: true });
    if (expected) accepted++;
    t.equal(signatures.verifyEd25519(signature, message, A.toBytes()), expected, `case ${n}`);
  }
  t.equal(accepted, 110, 'all but those with a wrong or unreduced S');
});

async function sha512(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-512', bytes as Uint8Array<ArrayBuffer>));
}

t.test('ed25519: ordinary and malformed signatures', async (t) => {
  const random = randomly(3);
  for (let n = 0; n < 40; n++) {
    const secret = new Uint8Array(32).map(() => random(256));
    const message = new Uint8Array(n * 7).map(() => random(256));
    const parts = [ed25519.sign(message, secret), message, ed25519.getPublicKey(secret)] as const;
    t.ok(signatures.verifyEd25519(...parts), `signature ${n}`);
    const changed = parts[n % 2 === 0 ? 0 : 2];
    changed[random(changed.length)]! ^= 1 << random(8);
    t.equal(
      signatures.verifyEd25519(...parts),
      ed25519.verify(...parts, { zip215: true }),
      `signature ${n}, changed: as noble says`,
    );
  }
  t.notOk(signatures.verifyEd25519(new Uint8Array(63), utf8(''), new Uint8Array(32)));
  t.notOk(signatures.verifyEd25519(new Uint8Array(64), utf8(''), new Uint8Array(31)));
});

t.test('ecdsa: recovers what noble recovers, from any r, s and recovery id', async (t) => {
  const ORDER = secp256k1.Point.Fn.ORDER;
  const random = randomly(4);
  const bytes = () => new Uint8Array(32).map(() => random(256));
  const edges = [0n, 1n, 2n, ORDER - 1n, ORDER, ORDER + 1n, 2n ** 256n - 1n, ORDER / 2n, ORDER / 2n + 1n];
  edges.push(2n ** 256n - 2n ** 32n - 977n - ORDER);
  let recovered = 0;
  for (let n = 0; n < 400; n++) {
    const r = n % 3 === 0 ? bytesOf(edges[random(edges.length)]!, 32) : bytes();
    const s = n % 5 === 0 ? bytesOf(edges[random(edges.length)]!, 32) : bytes();
    const hash = n % 7 === 0 ? new Uint8Array(32).fill(n % 2 ? 0 : 255) : bytes();
    const id = n % 4;
    let expected: string | undefined;
    try {
      expected = toHex(secp256k1.recoverPublicKey(concatBytes(Uint8Array.of(id), r, s), hash, { prehash: false }));
      recovered++;
    } catch {
      expected = undefined;
    }
    for (const tag of [id, id + 27]) {
      const key = signatures.recoverEcdsa(concatBytes(r, s, Uint8Array.of(tag)), hash);
      t.equal(key && toHex(key), expected, `case ${n}, recovery id ${tag}`);
    }
  }
  t.ok(recovered > 60, `${recovered} of them had a key`);
  const any = new Uint8Array(65).fill(1);
  for (const tag of [4, 26, 31, 255]) {
    any[64] = tag;
    t.equal(signatures.recoverEcdsa(any, bytes()), undefined, `recovery id ${tag}`);
  }
  t.equal(signatures.recoverEcdsa(new Uint8Array(64).fill(1), bytes()), undefined, '64 bytes');
  t.equal(signatures.recoverEcdsa(new Uint8Array(65).fill(1), new Uint8Array(31)), undefined, 'a hash of 31 bytes');
});

t.test('the cache answers what it has seen, forgets the oldest, and tells similar questions apart', async (t) => {
  let asked = 0;
  const cache = new SignatureCache(
    {
      verifySr25519: (...parts) => {
        asked++;
        return signatures.verifySr25519(...parts);
      },
      verifyEd25519: () => {
        asked++;
        return true;
      },
      recoverEcdsa: () => {
        asked++;
        return new Uint8Array(33).fill(2);
      },
    },
    { capacity: 4 },
  );
  const pair = sr25519PairFromSeed(new Uint8Array(32).fill(5));
  const message = utf8('a');
  const signature = sr25519Sign(message, pair);
  t.ok(cache.verifySr25519(signature, message, pair.publicKey));
  t.ok(cache.verifySr25519(signature.slice(), message.slice(), pair.publicKey.slice()));
  t.equal(asked, 1, 'asked once');
  t.notOk(cache.verifySr25519(signature, utf8('b'), pair.publicKey), 'another message');
  t.notOk(cache.verifySr25519(signature, utf8('b'), pair.publicKey));
  t.equal(asked, 2, 'a refusal is remembered too');
  t.ok(cache.verifyEd25519(signature, message, pair.publicKey), 'the same bytes under another scheme');
  t.equal(asked, 3);
  const long = new Uint8Array(4_096);
  t.notOk(cache.verifySr25519(signature, long, pair.publicKey));
  long[4_095] = 1;
  t.notOk(cache.verifySr25519(signature, long, pair.publicKey));
  t.equal(asked, 5, 'long messages are told apart by their last byte');
  const key = cache.recoverEcdsa(new Uint8Array(65), new Uint8Array(32))!;
  key.fill(0);
  t.strictSame(
    cache.recoverEcdsa(new Uint8Array(65), new Uint8Array(32)),
    new Uint8Array(33).fill(2),
    'not by reference',
  );
  t.equal(asked, 6);
  t.notOk(cache.verifySr25519(new Uint8Array(300), message, pair.publicKey), 'wrong lengths do not get that far');
  t.equal(asked, 6);
  for (let i = 0; i < 20; i++) cache.verifySr25519(signature, Uint8Array.of(i), pair.publicKey);
  t.ok(cache.statistics.size <= 8, 'bounded');
  cache.verifySr25519(signature, message, pair.publicKey);
  t.equal(asked, 27, 'what was forgotten is asked again');
});
