import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { blake2AsU8a, keccakAsU8a, xxhashAsU8a } from '@polkadot/util-crypto';
import t from 'tap';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { fromHex, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { twox } from '../../../runtime/primitives/twox.ts';

const hashing = createHashing();
const vectors = new URL('../../vectors/', import.meta.url);

/** Bytes without pattern, the same every time. */
function* inputs(): Generator<Uint8Array> {
  let state = 0x2545f491;
  for (const length of [...Array(300).keys(), 1_000, 4_096, 65_537]) {
    yield Uint8Array.from({ length }, () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return state & 0xff;
    });
  }
}

t.test('every length agrees with @polkadot/util-crypto and OpenSSL', async (t) => {
  for (const data of inputs()) {
    const name = `${data.length} bytes`;
    for (const bits of [64, 128, 256] as const) {
      t.strictSame(toHex(twox(data, bits)), toHex(xxhashAsU8a(data, bits)), `twox${bits} of ${name}`);
    }
    t.strictSame(toHex(hashing.blake2_128(data)), toHex(blake2AsU8a(data, 128)), `blake2_128 of ${name}`);
    t.strictSame(toHex(hashing.blake2_256(data)), toHex(blake2AsU8a(data, 256)), `blake2_256 of ${name}`);
    t.strictSame(toHex(hashing.keccak256(data)), toHex(keccakAsU8a(data, 256)), `keccak256 of ${name}`);
    const sha256 = createHash('sha256').update(data).digest();
    t.strictSame(toHex(hashing.sha256(data)), toHex(sha256), `sha256 of ${name}`);
  }
});

t.test('storage prefixes that every Substrate chain has', async (t) => {
  const key = (pallet: string, item: string) =>
    toHex(hashing.twox128(utf8(pallet))).slice(2) + toHex(hashing.twox128(utf8(item))).slice(2);
  t.equal(key('System', 'Account'), '26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9');
  t.equal(key('Timestamp', 'Now'), 'f0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb');
});

t.test('digests are fresh arrays, and views of larger buffers are hashed as what they show', async (t) => {
  const first = hashing.blake2_256(utf8('a'));
  const copy = first.slice();
  hashing.blake2_256(utf8('b'));
  t.strictSame(first, copy, 'not overwritten by the next call');
  const around = fromHex('ff00112233445566778899ff');
  t.strictSame(hashing.blake2_256(around.subarray(1, 11)), blake2AsU8a(around.slice(1, 11), 256));
  t.strictSame(hashing.sha256(around.subarray(1, 11)), hashing.sha256(around.slice(1, 11)));
});

t.test('headers of real blocks', async (t) => {
  const polkadot = readFileSync(new URL('header-polkadot-512271.bin', vectors));
  const kusama = gunzipSync(readFileSync(new URL('header-kusama-7472481.bin.gz', vectors)));
  for (const header of [polkadot, kusama]) {
    t.strictSame(hashing.blake2_256(header), blake2AsU8a(header, 256));
  }
});
