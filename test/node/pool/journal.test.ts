/** What was accepted is read back after any end, also one in the middle of a write. */
import { appendFile, mkdtemp, readFile, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { journaling, TransactionJournal } from '../../../node/pool/journal.ts';
import type { ChainEvent } from '../../../node/ports/chain.ts';

const extrinsic = (i: number): Uint8Array => new Uint8Array(100 + (i % 7)).fill(i & 255);
const hex = (list: readonly Uint8Array[]) => list.map((each) => Buffer.from(each).toString('hex'));

t.test('append, read back, cut ends', async (test) => {
  const directory = await mkdtemp(join(tmpdir(), 'journal-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 'transactions');
  const all = Array.from({ length: 500 }, (_, i) => extrinsic(i));
  const first = new TransactionJournal(path);
  test.same(first.left, []);
  await Promise.all(all.slice(0, 300).map((each) => first.append(each)));
  // Not closed: a process that is killed closes nothing.
  const second = new TransactionJournal(path);
  test.same(hex(second.left), hex(all.slice(0, 300)));
  for (const each of all.slice(300)) await second.append(each);
  await second.close();

  const whole = await readFile(path);
  for (const cut of [1, 3, 50, 103]) {
    await truncate(path, whole.length - cut);
    const third = new TransactionJournal(path);
    test.same(hex(third.left), hex(all.slice(0, 499)), `${cut} bytes short`);
    await third.append(all[499]!);
    await third.close();
    test.same(await readFile(path), whole, 'and written on where the last whole one ends');
  }
  await appendFile(path, new Uint8Array([255, 255, 255, 255, 1]));
  const noise = new TransactionJournal(path);
  test.equal(noise.left.length, 500, 'noise at the end is left out');

  await Promise.all([
    noise.append(extrinsic(1_000)),
    noise.keep(() => all.slice(0, 2)),
    noise.append(extrinsic(1_001)),
  ]);
  await noise.close();
  const last = hex(new TransactionJournal(path).left);
  test.same(last.slice(0, 2), hex(all.slice(0, 2)));
  test.ok(last.includes(hex([extrinsic(1_001)])[0]!), 'what came meanwhile is kept');
  test.equal((await stat(path)).mode & 0o777, 0o600);
});

t.test('a pool gets back what it had, and the file is emptied when there is nothing left', async (test) => {
  const directory = await mkdtemp(join(tmpdir(), 'journal-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 'transactions');
  const before = new TransactionJournal(path);
  await Promise.all([1, 2, 3].map((i) => before.append(extrinsic(i))));
  await before.close();

  const journal = new TransactionJournal(path);
  let held: Uint8Array[] = [];
  let listener: (event: ChainEvent) => void = () => {};
  const pool = {
    submit: async (each: Uint8Array) => {
      if (each[0] === 2) throw new Error('it is in a block');
      held.push(each);
    },
    status: () => ({ ready: held.length, future: 0 }),
    locals: () => held,
  };
  const events = {
    subscribe: (each: typeof listener) => {
      listener = each;
      return () => {};
    },
  };
  const stop = new AbortController();
  const lines: string[] = [];
  const running = journaling(journal, pool, events, (_level, message) => lines.push(message)).run(stop.signal);
  await new Promise((resolve) => setImmediate(resolve));
  test.same(hex(held), hex([extrinsic(1), extrinsic(3)]));
  test.same(lines, ['2 transactions of the last run are back in the pool']);
  listener({ type: 'imported' } as ChainEvent);
  test.ok((await stat(path)).size > 0, 'while they wait it stays');
  held = [];
  listener({ type: 'imported' } as ChainEvent);
  stop.abort();
  await running;
  await journal.close();
  test.equal((await stat(path)).size, 0);
});
