import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { blake2b } from '@noble/hashes/blake2.js';
import t, { type Test } from 'tap';
import { type BlobError, type BlobErrorCode, BlobStore } from '../../../node/blobs/blob-store.ts';
import type { BlobClaim } from '../../../node/blobs/committed.ts';
import { blobHandler, parseRange } from '../../../node/blobs/http.ts';
import type { Claim } from '../../../runtime/pallets/ledger/blobs.ts';
import type { ClaimId } from '../../../runtime/primitives/attribution/ids.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { asHash } from '../../../runtime/primitives/types.ts';

const nameOf = (data: Uint8Array) => asHash(blake2b(data, { dkLen: 32 }));

async function setUp(test: Test, maxBytes = 100_000_000) {
  const directory = await mkdtemp(join(tmpdir(), 'blobs-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  const claims = new Map<string, BlobClaim[]>();
  let clock = 0;
  const options = {
    ...{ directory, maxBytes, now: () => clock },
    claims: (hash: Uint8Array) => claims.get(toHex(hash)) ?? [],
  };
  const store = await BlobStore.open(options);
  let next = 0n;
  /** An account claims the blob. */
  const commit = (data: Uint8Array, size = data.length, account = 1, kind: Claim['purpose']['type'] = 'Records') => {
    const hash = nameOf(data);
    const claim = { purpose: { type: kind }, depositor: new Uint8Array(32).fill(account) } as unknown as Claim;
    claims.set(toHex(hash), [...(claims.get(toHex(hash)) ?? []), { id: next++ as ClaimId, bytes: size, claim }]);
    return hash;
  };
  const release = (hash: Uint8Array) => claims.delete(toHex(hash));
  const wait = (ms: number) => {
    clock += ms;
  };
  return { directory, options, store, commit, release, wait };
}

const refused = async (test: Test, work: Promise<unknown>, code: BlobErrorCode) => test.rejects(work, { code }, code);

t.test('a blob is taken in once the chain knows it, whole and as it should be', async (test) => {
  const { directory, options, store, commit } = await setUp(test);
  const data = randomBytes(100_000);
  await refused(test, store.put(nameOf(data), [data]), 'NOT_EXPECTED');
  const hash = commit(data);
  await refused(test, store.put(hash, [data.subarray(0, 99_999)]), 'TRUNCATED');
  await refused(test, store.put(hash, [data, Uint8Array.of(1)]), 'TOO_LARGE');
  await refused(test, store.put(hash, [randomBytes(100_000)]), 'WRONG_HASH');
  test.equal(store.has(hash), false);
  test.same(await readdir(join(directory, 'incoming')), [], 'refused uploads leave nothing behind');

  await store.put(hash, [data.subarray(0, 7), data.subarray(7)]);
  test.same(await store.read(hash), data);
  test.same(await store.read(hash, 5, 10), data.subarray(5, 15));
  await test.rejects(store.read(hash, 99_999, 2), { code: 'BAD_RANGE' });
  const empty = commit(new Uint8Array());
  await store.put(empty, []);
  test.same(await store.read(empty), new Uint8Array());

  await writeFile(join(directory, 'incoming', 'half'), 'interrupted');
  const again = await BlobStore.open(options);
  test.same(again.usage, { blobs: 2, bytes: 100_000, maxBytes: 100_000_000 }, 'a restart finds what was accepted');
  test.same(await readdir(join(directory, 'incoming')), []);
  test.same(await again.read(hash), data);
  await again.remove(hash);
  test.equal(again.usage.bytes, 0);
});

t.test('a wrong size that somebody claims is in nobody’s way', async (test) => {
  const { store, commit } = await setUp(test);
  const data = randomBytes(50_000);
  const hash = commit(data, 3, 2);
  await refused(test, store.put(hash, [data], 50_000), 'NOT_EXPECTED');
  commit(data, 5_000_000, 3);
  commit(data);
  await refused(test, store.put(hash, [data.subarray(0, 3)], 3), 'WRONG_HASH');
  await store.put(hash, [data], 50_000);
  test.same(await store.read(hash), data);
  const other = randomBytes(50_000);
  const again = commit(other, 3, 2);
  commit(other);
  await store.put(again, [other]);
  test.equal(store.size(again), 50_000, 'also where the sender does not say how long it is');
});

t.test('a kind has its part of the store, and an account no more than half of what others leave', async (test) => {
  const { store, commit, release } = await setUp(test, 10_000);
  const put = async (bytes: number, account: number, kind?: Claim['purpose']['type']) => {
    const data = randomBytes(bytes);
    const hash = commit(data, bytes, account, kind);
    await store.put(hash, [data]);
    return hash;
  };
  // 4,000 bytes are for records: account 1 has at most half of them, the next at most half of the rest, and so on.
  const first = await put(2_000, 1);
  await refused(test, put(1, 1), 'STORE_FULL');
  await put(1_000, 2);
  await refused(test, put(1, 2), 'STORE_FULL');
  for (let account = 3; account <= 6; account++) await put(Math.floor(1_000 / 2 ** (account - 2)), account);
  await put(30, 7);
  test.equal(await put(2_000, 1, 'Training').then(() => true), true, 'adapters have room of their own');
  await put(1_000, 1, 'Receipts');
  await refused(test, put(1, 1, 'Disclosure'), 'STORE_FULL');
  // What two accounts claim is taken in if one of them has room.
  const shared = randomBytes(15);
  commit(shared, 15, 1);
  const hash = commit(shared, 15, 8);
  await store.put(hash, [shared]);
  test.ok(store.has(hash));
  // What is released makes room.
  release(first);
  test.same(store.review().map(toHex), [toHex(first)]);
  const more = await put(1_000, 1);
  test.ok(store.has(more));
  test.same(store.review().map(toHex), [toHex(first)], 'it stays as long as nobody needs the room');
  await store.remove(first);
  test.equal(store.has(first), false);
});

t.test('what nobody claims goes first when the store is full', async (test) => {
  const { store, commit, release, options } = await setUp(test, 10_000);
  const keep = async (bytes: number, account: number, kind: Claim['purpose']['type']) => {
    const data = randomBytes(bytes);
    const hash = commit(data, bytes, account, kind);
    await store.put(hash, [data]);
    return hash;
  };
  const old: Uint8Array[] = [];
  for (let round = 0; round < 4; round++) {
    old.push(await keep(2_000, 1, 'Records'));
    release(old[round]!);
    store.review();
  }
  test.equal(store.usage.bytes, 8_000, 'it is still there');
  await keep(2_000, 1, 'Training');
  await keep(2_000, 2, 'Records');
  test.equal(store.usage.bytes, 10_000);
  test.equal(old.filter((hash) => store.has(hash)).length, 3);
  const again = await BlobStore.open(options);
  test.equal(again.usage.bytes, 10_000);
  test.equal(again.review().length, 3, 'a restart knows whose they are');
});

t.test('uploads keep no room that they do not fill, and slow ones make room for others', async (test) => {
  const { store, commit, wait, directory } = await setUp(test, 100_000);
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const stuck = randomBytes(10_000);
  const slow = async function* () {
    yield stuck.subarray(0, 100);
    await gate;
    yield stuck.subarray(100);
  };
  const hash = commit(stuck, 10_000, 1);
  const waiting = Array.from({ length: 8 }, () => store.put(hash, slow()));
  await new Promise((resolve) => setTimeout(resolve, 20));
  for (let account = 2; account < 5; account++) {
    const data = randomBytes(5_000);
    await store.put(commit(data, 5_000, account), [data]);
  }
  test.equal(store.usage.blobs, 3, 'eight uploads that stand still are in nobody’s way');
  // 25,000 bytes may be under way: the slowest ends where another needs its place.
  wait(1_000);
  const big = randomBytes(24_900);
  await refused(test, store.put(commit(big, 24_900, 9, 'Training'), [big]), 'STORE_FULL');
  const fits = randomBytes(19_900);
  const fast = async function* () {
    for (let at = 0; at < fits.length; at += 100) yield fits.subarray(at, at + 100);
  };
  await store.put(commit(fits, 19_900, 9, 'Training'), fast());
  release();
  const ends = await Promise.allSettled(waiting);
  const ended = ends.map((each) => (each.status === 'fulfilled' ? 'whole' : (each.reason as BlobError).code));
  test.ok(store.has(hash) && ended.every((each) => each === 'whole' || each === 'BUSY'), ended.join());
  test.equal(store.usage.bytes, 15_000 + 19_900 + 10_000);
  test.same(await readdir(join(directory, 'incoming')), []);

  const data = randomBytes(10_000);
  const drip = async function* () {
    for (const byte of data) {
      wait(5_000);
      yield Uint8Array.of(byte);
    }
  };
  await refused(test, store.put(commit(data, 10_000, 3, 'Receipts'), drip()), 'TOO_SLOW');
});

t.test('where uploads take too much together, the slowest makes room', async (test) => {
  const { store, commit, wait } = await setUp(test, 100_000);
  const halves = Array.from({ length: 2 }, () => randomBytes(19_000));
  const ways = halves.map((half, at) => {
    const hash = commit(half, 19_000, 1, at === 0 ? 'BaseModel' : 'Records');
    const body = async function* () {
      yield half.subarray(0, 15_000);
      if (at === 0) await new Promise(() => {});
      yield half.subarray(15_000);
    };
    return { hash, body };
  });
  const first = store.put(ways[0]!.hash, ways[0]!.body());
  first.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 20));
  wait(10_000);
  await store.put(ways[1]!.hash, ways[1]!.body());
  await refused(test, first, 'BUSY');
});

t.test('an upload that stands still is given up', async (test) => {
  const { options, commit } = await setUp(test);
  const store = await BlobStore.open({ ...options, idleMs: 30 });
  // The store's own timer lets the process end.
  const alive = setInterval(() => {}, 1_000);
  test.teardown(() => clearInterval(alive));
  const data = randomBytes(1_000);
  const body = async function* () {
    yield data.subarray(0, 10);
    await new Promise(() => {});
  };
  await refused(test, store.put(commit(data), body()), 'TOO_SLOW');
});

t.test('HTTP: put, get, ranges and what goes wrong', async (test) => {
  const { store, commit } = await setUp(test);
  const handle = blobHandler(store);
  const server = createServer((request, response) => {
    if (!handle(request, response)) response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const url = (hash: Uint8Array) => `http://127.0.0.1:${port}/blobs/${toHex(hash)}`;
  const data = randomBytes(300_000);
  const hash = nameOf(data);
  const refusedPut = await fetch(url(hash), { method: 'PUT', body: data });
  test.equal(refusedPut.status, 403);
  test.match(await refusedPut.json(), { error: { code: 'NOT_EXPECTED' } });
  commit(data);
  test.equal((await fetch(url(hash), { method: 'PUT', body: randomBytes(300_000) })).status, 422);
  test.equal((await fetch(url(hash), { method: 'PUT', body: data })).status, 201);
  test.equal((await fetch(url(hash), { method: 'PUT', body: data })).status, 200);

  const get = (range?: string) => fetch(url(hash), range === undefined ? {} : { headers: { range } });
  const whole = await get();
  test.equal(whole.headers.get('content-length'), '300000');
  test.same(Buffer.from(await whole.arrayBuffer()), data);
  for (const [range, first, last] of [
    ['bytes=10-19', 10, 19],
    ['bytes=299990-', 299_990, 299_999],
    ['bytes=-5', 299_995, 299_999],
    ['bytes=0-999999', 0, 299_999],
  ] as const) {
    const part = await get(range);
    test.equal(part.status, 206, range);
    test.equal(part.headers.get('content-range'), `bytes ${first}-${last}/300000`);
    test.same(Buffer.from(await part.arrayBuffer()), data.subarray(first, last + 1));
  }
  const beyond = await get('bytes=300000-');
  test.equal(beyond.status, 416);
  test.equal(beyond.headers.get('content-range'), 'bytes */300000');
  test.equal((await fetch(url(hash), { method: 'HEAD' })).headers.get('content-length'), '300000');
  test.equal((await fetch(url(nameOf(Uint8Array.of(1))))).status, 404);
  test.equal((await fetch(`http://127.0.0.1:${port}/blobs/../etc/passwd`)).status, 404);
  test.equal((await fetch(`http://127.0.0.1:${port}/blobs/xyz`)).status, 400);
  test.equal((await fetch(url(hash), { method: 'DELETE' })).status, 405);

  const other = randomBytes(1000);
  const otherHash = commit(other);
  await new Promise<void>((resolve) => {
    const request = httpRequest(url(otherHash), { method: 'PUT', headers: { 'content-length': 1000 } });
    request.on('error', () => resolve());
    request.write(other.subarray(0, 500), () => request.destroy());
  });
  await new Promise((resolve) => setTimeout(resolve, 50));
  test.equal(store.has(otherHash), false, 'an upload that breaks off is nothing');
  test.equal(parseRange('bytes=5-2', 10), undefined, 'a malformed range is ignored, as the RFC says');
  test.equal(parseRange('lines=1-2', 10), undefined);
  test.equal(parseRange('bytes=-0', 10), null);
});
