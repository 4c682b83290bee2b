/** Hooks and queues of work: budgets, failures of all kinds, what is set aside, and what root does about it. */
import t from 'tap';
import { cost, error, fail, PS_PER_MS } from '../../../runtime/framework/dispatch.ts';
import { type Hooks, pallet } from '../../../runtime/framework/pallet.ts';
import { mapWithDefault, storage, twox64Concat } from '../../../runtime/framework/storage.ts';
import { RETRY_AFTER, workQueue } from '../../../runtime/framework/work-queue.ts';
import { HostFault } from '../../../runtime/host.ts';
import { InvalidBlock } from '../../../runtime/primitives/invalid-block.ts';
import { encode, struct, u8, u32, variants } from '../../../runtime/primitives/scale/codec.ts';
import { chainOf } from './chain.ts';

const job = struct({
  id: u32,
  parts: u32,
  ends: variants({ Well: null, Failure: null, Type: null, Range: null, Block: null, Host: null, Heavy: null }),
});
const errors = { Refused: error(0, 'Refused.') };
const BUDGET = 50n * PS_PER_MS;
const STEP = 10n * PS_PER_MS;

/** A pallet whose jobs write down that they ran, and then end as they are told. */
function jobs(hooks: Hooks = {}) {
  const ran: number[] = [];
  const done = mapWithDefault(twox64Concat(u32), u32, 0);
  /** Job numbers that succeed from now on, whatever they were told. */
  const mended = new Set<number>();
  const queue = workQueue({
    name: 'Jobs',
    docs: 'Jobs.',
    item: job,
    budget: BUDGET,
    weight: ({ ends }) => cost(ends.type === 'Heavy' ? BUDGET + 1n : STEP),
    run({ host }, { id, parts, ends }) {
      ran.push(id);
      done.mutate(host, id, (count) => count + 1);
      if (parts > 1) return { rest: { id, parts: parts - 1, ends } };
      if (mended.has(id)) return undefined;
      switch (ends.type) {
        case 'Failure':
          return fail(errors.Refused);
        case 'Type':
          return (undefined as unknown as { rest: () => undefined }).rest();
        case 'Range': {
          const again = (): number => again() + 1;
          again();
          return undefined;
        }
        case 'Block':
          throw new InvalidBlock('BAD_EXTRINSIC', 'an item of work judges no block');
        case 'Host':
          throw new HostFault('the disk is gone');
        default:
          return undefined;
      }
    },
  });
  const store = storage('Jobs', { Done: done, ...queue.storage });
  const spec = pallet({ name: 'Jobs', index: 10, storage: store, errors, hooks, work: [queue] });
  return { spec, queue, store, ran, mended };
}
type Ends = 'Well' | 'Failure' | 'Type' | 'Range' | 'Block' | 'Host' | 'Heavy';
const of = (id: number, ends: Ends = 'Well', parts = 1) => ({ id, parts, ends: { type: ends } });

t.test('items run in the order in which they fall due, each once, and leave nothing behind', async (test) => {
  const { spec, queue, store, ran } = jobs();
  const chain = await chainOf([spec]);
  const enter = (due: number, id: number) => queue.schedule(chain.host, { now: chain.number(), due }, of(id));
  chain.block();
  enter(4, 41);
  enter(3, 31);
  enter(4, 42);
  // What is due already runs in the next block; and so does what a call enters for its own block.
  enter(0, 21);
  chain.block(() => {
    test.same(ran, [21]);
    enter(2, 32);
  });
  chain.block();
  test.same(ran, [21, 31, 32]);
  chain.block();
  chain.block();
  test.same(ran, [21, 31, 32, 41, 42]);
  test.equal([...store.JobsItems.entries(chain.host)].length, 0);
  test.equal([...store.JobsCounts.entries(chain.host)].length, 0);
  test.equal(store.JobsCursor.get(chain.host), undefined);
});

t.test(
  'however many fall due, a block does no more than the budget says, and all are done in the end',
  async (test) => {
    const { spec, queue, store, ran } = jobs();
    const chain = await chainOf([spec]);
    for (let id = 0; id < 200; id++) queue.schedule(chain.host, { now: 0, due: 1 }, of(id));
    queue.schedule(chain.host, { now: 0, due: 2 }, of(200));
    let blocks = 0;
    while (ran.length < 201 && blocks < 100) {
      const before = ran.length;
      const { mandatory } = chain.block(() => test.ok(ran.length - before <= 5, 'of 10 ms each, in 50 ms'));
      test.ok(mandatory.refTime <= BUDGET + 2n * PS_PER_MS);
      test.ok(ran.length - before <= 25, 'with what the block left');
      blocks++;
    }
    test.same(
      ran,
      Array.from({ length: 201 }, (_, id) => id),
    );
    test.ok(blocks >= 8 && blocks < 100);
    test.equal(store.JobsCursor.get(chain.host), undefined);
  },
);

t.test('a large item does a part of its work in a step, before those behind it', async (test) => {
  const { spec, queue, ran } = jobs();
  const chain = await chainOf([spec]);
  queue.schedule(chain.host, { now: 0, due: 1 }, of(1, 'Well', 60));
  queue.schedule(chain.host, { now: 0, due: 1 }, of(2));
  const steps: number[] = [];
  while (!ran.includes(2) && steps.length < 100) {
    const before = ran.length;
    chain.block();
    steps.push(ran.length - before);
  }
  test.equal(ran.filter((id) => id === 1).length, 60);
  test.equal(ran.at(-1), 2);
  test.ok(steps.length >= 3 && Math.max(...steps) <= 25);
});

for (const [ends, told] of [
  ['Failure', { type: 'Module', value: { index: 10, error: new Uint8Array(4) } }],
  ['Type', { type: 'Other' }],
  ['Range', { type: 'Other' }],
  ['Block', { type: 'Other' }],
] as const) {
  t.test(`an item that ends with ${ends} is undone, told, tried again and set aside`, async (test) => {
    const { spec, queue, store, ran, mended } = jobs();
    const chain = await chainOf([spec]);
    queue.schedule(chain.host, { now: 0, due: 1 }, of(7, ends));
    queue.schedule(chain.host, { now: 0, due: 1 }, of(8));
    const tries: number[] = [];
    const failures: unknown[] = [];
    let aside: Record<string, unknown> | undefined;
    const last = 1 + RETRY_AFTER.reduce((sum, each) => sum + each, 0);
    while (chain.number() < last + 5) {
      const before = ran.filter((id) => id === 7).length;
      const { events } = chain.block();
      if (ran.filter((id) => id === 7).length > before) tries.push(chain.number());
      for (const { name, value } of events) {
        if (name === 'Work.ItemFailed') failures.push(value);
        if (name === 'Work.SetAside') aside = value;
      }
    }
    test.same(tries, [1, 2, 12, 112, 1_112], 'in bounded ways');
    test.match(failures[0], { queue: 'Jobs.Jobs', block: 1, index: 0, failures: 1, retryAt: 2, error: told });
    test.match(failures.at(-1), { failures: 5, retryAt: undefined });
    test.match(aside, { queue: 'Jobs.Jobs', id: 0, error: told });
    test.equal(store.Done.get(chain.host, 7), 0, 'no trace');
    test.equal(store.Done.get(chain.host, 8), 1, 'others are not its victims');
    test.match(store.JobsSetAside.get(chain.host, 0), { since: 1_112, error: told, item: { id: 7 } });

    const call = (name: string, id: number, queueName = 'Jobs.Jobs') => ({
      type: 'Work',
      value: { type: name, value: { queue: queueName, id } },
    });
    test.equal(chain.root(call('retry', 1)), 'Work.UnknownItem');
    test.equal(chain.root(call('retry', 0, 'Jobs.Other')), 'Work.UnknownQueue');
    mended.add(7);
    test.equal(chain.root(call('retry', 0)), undefined);
    chain.block();
    test.equal(store.Done.get(chain.host, 7), 1, 'root had it tried again, and it worked');
    test.equal(chain.root(call('drop', 0)), 'Work.UnknownItem');
  });
}

t.test('an item heavier than the budget is set aside, and does not hold up those behind it', async (test) => {
  const { spec, queue, ran, store } = jobs();
  const chain = await chainOf([spec]);
  queue.schedule(chain.host, { now: 0, due: 1 }, of(1, 'Heavy'));
  queue.schedule(chain.host, { now: 0, due: 1 }, of(2));
  const { events } = chain.block();
  test.match(events[0], { name: 'Work.SetAside', value: { id: 0, error: { type: 'Exhausted' } } });
  test.same(ran, [2]);
  test.equal(chain.root({ type: 'Work', value: { type: 'drop', value: { queue: 'Jobs.Jobs', id: 0 } } }), undefined);
  test.equal(store.JobsSetAside.get(chain.host, 0), undefined);
});

t.test('an item that this runtime cannot read stays where it lies', async (test) => {
  const { spec, queue, ran, store } = jobs();
  const chain = await chainOf([spec]);
  queue.schedule(chain.host, { now: 0, due: 1 }, of(1));
  queue.schedule(chain.host, { now: 0, due: 1 }, of(2));
  const key = store.JobsItems.key(chain.host, [1, 0]);
  chain.host.put(key, encode(u8, 255));
  const { events } = chain.block();
  test.match(events[0], { name: 'Work.Unreadable', value: { queue: 'Jobs.Jobs', block: 1, index: 0 } });
  test.same(ran, [2]);
  test.ok(chain.host.exists(key));
});

t.test('a queue that a later runtime brings along begins with the block of that day', async (test) => {
  const { spec, queue, ran } = jobs();
  const before = await chainOf([]);
  for (let i = 0; i < 50; i++) before.block();
  const chain = await chainOf([spec], () => before.host);
  let looked = 0;
  const host = {
    ...before.host,
    get: (key: Uint8Array) => {
      looked++;
      return before.host.get(key);
    },
  };
  queue.schedule(host, { now: 50, due: 51 }, of(1));
  looked = 0;
  queue.drain({ ...chain.env(), host }, 51, BUDGET, { begins() {}, failed() {}, setAside() {}, unreadable() {} });
  test.same(ran, [1]);
  test.ok(looked < 10, 'blocks of the past are not searched');
});

t.test('hooks: what one throws is undone and told, the others run, the block goes on', async (test) => {
  const mark = storage('Mark', { Blocks: mapWithDefault(twox64Concat(u32), u32, 0) });
  const throwing = (what: () => never): Hooks => ({
    onInitialize({ host }, number) {
      mark.Blocks.insert(host, number, 1);
      return what();
    },
    onIdle: what,
    onFinalize: what,
  });
  const well: Hooks = {
    onInitialize({ host }, number) {
      mark.Blocks.insert(host, number, 2);
      return cost(0n);
    },
  };
  for (const what of [
    () => fail({ type: 'Exhausted' }),
    () => {
      throw new TypeError('a bug');
    },
    () => {
      throw new InvalidBlock('BAD_PRE_DIGEST', 'by a hook that judges no blocks');
    },
  ]) {
    const chain = await chainOf([
      pallet({ name: 'Mark', index: 11, storage: mark, hooks: throwing(what) }),
      pallet({ name: 'Good', index: 12, hooks: well }),
    ]);
    const { events } = chain.block();
    test.same(
      events.map(({ name, value }) => [name, value.hook]),
      [
        ['Work.HookFailed', 'Mark.on_initialize'],
        ['Work.HookFailed', 'Mark.on_idle'],
        ['Work.HookFailed', 'Mark.on_finalize'],
      ],
    );
    test.equal(chain.logged.filter((line) => line.startsWith('Mark.')).length, 3);
    test.equal(mark.Blocks.get(chain.host, 1), 2);
  }

  const judge = pallet({
    name: 'Judge',
    index: 11,
    hooks: {
      judgesBlocks: true,
      onInitialize() {
        throw new InvalidBlock('AUTHOR_DISABLED', 'the author is out of duty');
      },
    },
  });
  const judged = await chainOf([judge]);
  test.throws(() => judged.block(), { code: 'AUTHOR_DISABLED' }, 'those that judge blocks may');
});

t.test('a fault of the machine is nobody’s failure: it ends the block and leaves the item', async (test) => {
  const { spec, queue, store } = jobs();
  const chain = await chainOf([spec]);
  queue.schedule(chain.host, { now: 0, due: 1 }, of(1, 'Host'));
  test.throws(() => chain.block(), { code: 'HOST_FAULT' });
  test.ok(store.JobsItems.has(chain.host, [1, 0]));
});

t.test('queues whose budgets do not fit into a block are no runtime', async (test) => {
  const greedy = (index: number) =>
    pallet({
      name: `Greedy${index}`,
      index,
      work: [
        workQueue({
          name: 'Jobs',
          docs: 'Jobs.',
          item: u32,
          budget: 300n * PS_PER_MS,
          weight: () => cost(1n),
          run: () => undefined,
        }),
      ],
    });
  await chainOf([greedy(10)]);
  await test.rejects(chainOf([greedy(10), greedy(11)]), /budgets/);
});
