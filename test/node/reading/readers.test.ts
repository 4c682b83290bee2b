/** Reads beside the main thread: the same as there, bounded in time and size, in turns. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Database } from '../../../node/database/database.ts';
import type { ReadOptions } from '../../../node/ports/chain.ts';
import { pack, unpack } from '../../../node/reading/messages.ts';
import { Readers } from '../../../node/reading/readers.ts';
import { verifyProof } from '../../../node/state/proof.ts';
import { StateDatabase } from '../../../node/state/state-database.ts';
import { equalBytes, startsWith, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../../runtime/primitives/types.ts';
import { temporaryDirectory } from '../../main-job/support.ts';
import { hashing } from '../../rpc/fake.ts';

const KEYS = 6_000;
const keyAt = (i: number): Uint8Array => {
  const name = utf8(`item ${i}`);
  return new Uint8Array([...utf8(i % 2 === 0 ? 'even/' : 'odd/'), ...hashing.blake2_128(name), ...name]);
};
const block = (n: number): Hash => asHash(hashing.blake2_256(Uint8Array.of(n)));

async function world(test: Test, settings: ConstructorParameters<typeof Readers>[1] = {}) {
  const database = await Database.open(join(await temporaryDirectory(test), 'db'));
  const states = await StateDatabase.open(database, hashing.blake2_256, { pruning: 10 });
  const add = async (
    n: number,
    parent: Hash | undefined,
    change: (put: (key: Uint8Array, value: Uint8Array) => void) => void,
  ) => {
    const overlay = parent === undefined ? states.empty() : states.overlay(parent)!;
    change((key, value) => overlay.put(key, value));
    overlay.storageRoot(1);
    const batch = database.batch();
    const inserted = states.insert(batch, { hash: block(n), number: n }, overlay);
    return { batch, inserted };
  };
  const first = await add(1, undefined, (put) => {
    for (let i = 0; i < KEYS; i++) put(keyAt(i), utf8(`value ${i} ${'.'.repeat(i % 50)}`));
  });
  await first.batch.commit();
  first.inserted();
  const log: string[] = [];
  const readers = new Readers(
    {
      path: database.path,
      rootOf: (of) => states.rootOf(of),
      written: () => database.written(),
      log: (level, message) => log.push(`${level}: ${message}`),
    },
    settings,
  );
  test.teardown(async () => {
    await readers.close();
    await database.close();
  });
  const options = (change: Partial<ReadOptions> = {}): ReadOptions => ({
    ...{ by: {}, maxBytes: 2 ** 24, maxMs: 60_000 },
    ...change,
  });
  return { database, states, readers, add, options, log };
}

t.test('what is read is what the main thread reads', async (test) => {
  const { states, readers, add, options } = await world(test);
  const view = states.at(block(1))!;
  const keys = [...Array.from({ length: 1_500 }, (_, i) => keyAt(i * 3)), utf8('absent'), new Uint8Array()];
  const values = await readers.values(block(1), keys, options());
  test.equal(values.length, keys.length);
  test.ok(
    values.every((value, i) =>
      value === undefined ? view.get(keys[i]!) === undefined : equalBytes(value, view.get(keys[i]!)!),
    ),
  );
  test.same(values.slice(-2), [undefined, undefined]);

  const prefix = utf8('odd/');
  const found: Uint8Array[] = [];
  let after: Uint8Array | undefined;
  for (let more = true; more; ) {
    const page = await readers.page(block(1), { prefix, after, count: 700, values: true }, options());
    for (const [key, value] of page.entries) {
      test.ok(equalBytes(value, view.get(key)!)) || test.bailout(toHex(key));
      found.push(key);
    }
    more = page.more;
    after = found.at(-1);
  }
  const expected: Uint8Array[] = [];
  for (let key = view.nextKey(prefix); key !== undefined && startsWith(key, prefix); key = view.nextKey(key))
    expected.push(key);
  test.same(found.map(toHex), expected.map(toHex));
  const short = await readers.page(block(1), { prefix, count: 700, values: true }, options({ maxBytes: 500 }));
  test.ok(short.more && short.entries.length > 1 && short.entries.length < 20, 'a page is cut by its bytes');

  const proof = await readers.prove(block(1), keys, options());
  const proven = verifyProof(hashing.blake2_256, view.root, proof, keys);
  test.same(
    proven.map((value) => value && toHex(value)),
    values.map((value) => value && toHex(value)),
    'a proof of many keys is whole',
  );

  // Other threads see a block before it is written, or not at all.
  const next = await add(2, block(1), (put) => put(keyAt(0), utf8('changed')));
  const written = next.batch.commit({ ahead: true });
  next.inserted();
  const [changed] = await readers.values(block(2), [keyAt(0)], options());
  test.equal(Buffer.from(changed!).toString(), 'changed');
  await written;
  await test.rejects(readers.values(block(3), [keyAt(0)], options()), { code: 'UNKNOWN_BLOCK' });
  await test.rejects(readers.call(block(1), 'No_such', new Uint8Array(), options()), { code: 'UNKNOWN_METHOD' });
  await test.rejects(readers.call(block(1), 'Core_version', new Uint8Array(3), options()), { code: 'BAD_PARAMETERS' });
  test.ok((await readers.call(block(1), 'Core_version', new Uint8Array(), options())).length > 20);
  test.same(unpack(pack([utf8('a'), undefined, new Uint8Array(), utf8('bc')])), [
    utf8('a'),
    undefined,
    new Uint8Array(),
    utf8('bc'),
  ]);
});

t.test('what is too large or takes too long ends, and others go on', async (test) => {
  const { readers, options, log } = await world(test, { threads: 2, startMs: 5, idleMs: 100 });
  const keys = Array.from({ length: 4_000 }, (_, i) => keyAt(i));
  await test.rejects(readers.values(block(1), keys, options({ maxBytes: 10_000 })), { code: 'TOO_LARGE' });
  await test.rejects(readers.prove(block(1), keys, options({ maxBytes: 10_000 })), { code: 'TOO_LARGE' });
  const all = { prefix: new Uint8Array(), count: 1_000_000, values: true };
  await test.rejects(readers.page(block(1), all, options({ maxMs: 1 })), { code: 'TOO_LONG' });
  let spent = 0;
  await readers.page(block(1), { ...all, count: 10 }, options({ spent: (ms) => (spent += ms) }));
  test.ok(spent > 0, 'another thread took its place');
  test.same(log, [], 'which is no fault');

  // One who asks much does not hold up one who asks little.
  const done: string[] = [];
  const greedy = {};
  const much = Array.from({ length: 12 }, () =>
    readers.page(block(1), { ...all, count: 1_000 }, options({ by: greedy })).then(() => done.push('greedy')),
  );
  await much[0];
  await readers.values(block(1), [keyAt(1)], options()).then(() => done.push('modest'));
  test.ok(done.indexOf('modest') <= 4, `${done.indexOf('modest')} came before it`);
  await Promise.all(much);
  test.equal(done.length, 13);
  for (let waits = 0; readers.load.threads > 0 && waits < 200; waits++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  test.same(readers.load, { waiting: 0, threads: 0 }, 'threads that have nothing to do end');
  test.equal((await readers.values(block(1), [keyAt(1)], options())).length, 1, 'and come again');

  const crowded = await world(test, { threads: 1, maxWaiting: 3 });
  const asked = await Promise.allSettled(
    Array.from({ length: 6 }, () => crowded.readers.values(block(1), [keyAt(1)], crowded.options())),
  );
  test.equal(asked.filter(({ status }) => status === 'rejected').length, 3, 'more than may wait are refused');
  const late = crowded.readers.page(block(1), all, crowded.options());
  const told = test.rejects(late, { code: 'CLOSED' });
  await crowded.readers.close();
  await told;
});
