import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { blake2b } from '@noble/hashes/blake2.js';
import t, { type Test } from 'tap';
import { type BlobErrorCode, BlobStore } from '../../../node/blobs/blob-store.ts';
import { blobHandler, parseRange } from '../../../node/blobs/http.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { asHash } from '../../../runtime/primitives/types.ts';

const nameOf = (data: Uint8Array) => asHash(blake2b(data, { dkLen: 32 }));

async function setUp(test: Test, maxBytes = 10_000_000) {
  const directory = await mkdtemp(join(tmpdir(), 'blobs-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  const committed = new Map<string, number[]>();
  const options = { directory, maxBytes, expected: (hash: Uint8Array) => committed.get(toHex(hash)) ?? [] };
  const store = await BlobStore.open(options);
  const commit = (data: Uint8Array, size = data.length) => {
    const hash = nameOf(data);
    committed.set(toHex(hash), [size]);
    return hash;
  };
  return { directory, options, store, commit };
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
  test.same(again.usage, { blobs: 2, bytes: 100_000, maxBytes: 10_000_000 }, 'a restart finds what was accepted');
  test.same(await readdir(join(directory, 'incoming')), []);
  test.same(await again.read(hash), data);
  await again.remove(hash);
  test.equal(again.usage.bytes, 0);
});

t.test('the store is bounded, uploads under way included', async (test) => {
  const { store, commit } = await setUp(test, 1000);
  const [a, b] = [randomBytes(600), randomBytes(600)];
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const slow = async function* () {
    yield a.subarray(0, 300);
    await gate;
    yield a.subarray(300);
  };
  const first = store.put(commit(a), slow());
  await refused(test, store.put(commit(b), [b]), 'STORE_FULL');
  release();
  await first;
  test.equal(store.usage.bytes, 600);
  await refused(test, store.put(commit(b), [b]), 'STORE_FULL');
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
