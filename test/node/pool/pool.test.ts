import { setImmediate as nextTurn } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type PoolOptions, TransactionPool } from '../../../node/pool/pool.ts';
import type { TransactionStatus } from '../../../node/ports/chain.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import type { InvalidTransaction } from '../../../runtime/primitives/validity.ts';
import { extrinsicOf, FakeChain, type Spec, specOf } from './fake-chain.ts';

interface World {
  readonly chain: FakeChain;
  readonly pool: TransactionPool;
  submit(...specs: Spec[]): Promise<void>;
  /** Statuses in short: `inBlock 2:1` is index 1 in block 2. */
  watch(spec: Spec): Promise<string[]>;
  /** Sender and nonce of the ready transactions, best first. */
  ready(): string[];
  settle(): Promise<void>;
}

const rpc = (rpcCode: number) => ({ name: 'Error', rpcCode });

function setUp(t: Test, options: PoolOptions = {}): World {
  const chain = new FakeChain();
  const pool = new TransactionPool(chain.ports(), options);
  const controller = new AbortController();
  const running = pool.run(controller.signal);
  t.teardown(() => {
    if (chain.errors.length > 0) throw new Error(chain.errors.join('; '));
    controller.abort();
    return running;
  });
  const brief = (status: TransactionStatus): string => {
    if ('block' in status) {
      const { number } = chain.block(status.block);
      return `${status.type} ${number}${'index' in status ? `:${status.index}` : ''}`;
    }
    return status.type === 'usurped' ? `usurped by ${specOf(pool.get(status.by)!.extrinsic).salt}` : status.type;
  };
  return {
    chain,
    pool,
    submit: async (...specs) => {
      await Promise.all(specs.map((spec) => pool.submit(extrinsicOf(spec), 'external')));
    },
    watch: async (spec) => {
      const statuses: string[] = [];
      await pool.submitAndWatch(extrinsicOf(spec), (status) => statuses.push(brief(status)));
      return statuses;
    },
    ready: () => pool.ready().map((extrinsic) => `${specOf(extrinsic).sender}/${specOf(extrinsic).nonce}`),
    settle: async () => {
      for (let i = 0; i < 10; i++) await nextTurn();
    },
  };
}

t.test('ready and future transactions, by nonce and priority', async (t) => {
  const { pool, submit, ready, watch } = setUp(t);
  const early = await watch({ sender: 1, nonce: 2 });
  t.strictSame(early, ['future']);
  await submit({ sender: 2, nonce: 0, priority: 5 }, { sender: 2, nonce: 1, priority: 100 });
  t.strictSame(ready(), ['2/0', '2/1'], 'a dependent one is not ready before what it depends on');
  await submit({ sender: 1, nonce: 0, priority: 7 });
  t.strictSame(ready(), ['1/0', '2/0', '2/1']);
  t.strictSame(pool.status(), { ready: 3, future: 1, bytes: 4 * extrinsicOf({ sender: 1, nonce: 0 }).length });
  await submit({ sender: 1, nonce: 1, priority: 50 });
  t.strictSame(early, ['future', 'ready']);
  t.strictSame(ready(), ['1/0', '1/1', '1/2', '2/0', '2/1'], 'priority decides among what may come next');
  await submit({ sender: 3, nonce: 0, priority: 7, until: 9 }, { sender: 4, nonce: 0, priority: 7 });
  t.strictSame(ready(), ['3/0', '1/0', '1/1', '1/2', '4/0', '2/0', '2/1'], 'then haste, then order of arrival');
});

t.test('refusals carry the codes and texts of Substrate', async (t) => {
  const { chain, pool, submit } = setUp(t);
  const invalid = async (type: InvalidTransaction, data: string) => {
    chain.judge = () => ({ ok: false, error: { type: 'Invalid', value: type } });
    const extrinsic = extrinsicOf({ sender: 9, nonce: data.length, salt: 1 });
    await t.rejects(pool.submit(extrinsic, 'local'), {
      rpcCode: 1010,
      code: 'INVALID',
      message: 'Invalid Transaction',
      data,
    });
    const banned = { rpcCode: 1012, code: 'TEMPORARILY_BANNED', message: 'Transaction is temporarily banned' };
    await t.rejects(pool.submit(extrinsic, 'local'), banned);
  };
  await invalid({ type: 'Stale' }, 'Transaction is outdated');
  await invalid({ type: 'BadProof' }, 'Transaction has a bad signature');
  await invalid({ type: 'Payment' }, 'Inability to pay some fees (e.g. account balance too low)');
  await invalid({ type: 'ExhaustsResources' }, 'Transaction would exhaust the block limits');
  await invalid({ type: 'AncientBirthBlock' }, 'Transaction has an ancient birth block');
  await invalid({ type: 'Call' }, 'Transaction call is not expected');
  await invalid({ type: 'Custom', value: 7 }, 'Custom error: 7');
  chain.judge = () => ({ ok: false, error: { type: 'Unknown', value: { type: 'CannotLookup' } } });
  const unknown = {
    rpcCode: 1011,
    code: 'UNKNOWN_VALIDITY',
    message: 'Unknown Transaction Validity',
    data: 'CannotLookup',
  };
  const odd = extrinsicOf({ sender: 9, nonce: 0 });
  await t.rejects(pool.submit(odd, 'local'), unknown);
  await t.rejects(pool.submit(odd, 'local'), unknown, 'which is no reason for a ban');

  chain.judge = () => undefined;
  const first = extrinsicOf({ sender: 1, nonce: 0, priority: 10 });
  const hash = await pool.submit(first, 'local');
  await t.rejects(pool.submit(first, 'local'), { rpcCode: 1013, code: 'ALREADY_IMPORTED', data: toHex(hash) });
  const twice = extrinsicOf({ sender: 1, nonce: 5 });
  const [one, other] = await Promise.allSettled([pool.submit(twice, 'local'), pool.submit(twice, 'local')]);
  t.strictSame([one.status, other.status], ['fulfilled', 'rejected'], 'two at once count as one');
  await t.rejects(pool.submit(extrinsicOf({ sender: 1, nonce: 0, priority: 10, salt: 2 }), 'local'), {
    rpcCode: 1014,
    code: 'TOO_LOW_PRIORITY',
    message: 'Priority is too low: (10 vs 10)',
    data: 'The transaction has too low priority to replace another transaction already in the pool.',
  });
  chain.propagate = false;
  chain.authority = false;
  await t.rejects(submit({ sender: 5, nonce: 0 }), { rpcCode: 1018, code: 'UNACTIONABLE' });
});

t.test('bans end, and soon where the reason may be gone', async (t) => {
  const { chain, pool } = setUp(t, { banMs: 1_000, shortBanMs: 100 });
  const poor = extrinsicOf({ sender: 1, nonce: 0 });
  const forged = extrinsicOf({ sender: 2, nonce: 0 });
  const refuse = (type: 'Payment' | 'BadProof') => () =>
    ({ ok: false, error: { type: 'Invalid', value: { type } } }) as const;
  chain.judge = refuse('Payment');
  await t.rejects(pool.submit(poor, 'local'), rpc(1010));
  chain.judge = refuse('BadProof');
  await t.rejects(pool.submit(forged, 'local'), rpc(1010));
  chain.time = 101;
  chain.judge = () => undefined;
  await t.resolves(pool.submit(poor, 'local'));
  const validations = chain.validations;
  await t.rejects(pool.submit(forged, 'local'), rpc(1012));
  t.equal(chain.validations, validations, 'a banned one costs no validation');
  chain.time = 1_001;
  await t.resolves(pool.submit(forged, 'local'));
});

t.test('replacement by a higher priority', async (t) => {
  const { submit, watch, ready } = setUp(t);
  const old = await watch({ sender: 1, nonce: 0, priority: 10, salt: 1 });
  const next = await watch({ sender: 1, nonce: 1, priority: 10, salt: 2 });
  await submit({ sender: 1, nonce: 0, priority: 11, salt: 3 });
  t.strictSame(old, ['ready', 'usurped by 3']);
  t.strictSame(next, ['ready'], 'what came after the old one comes after the new one');
  t.strictSame(ready(), ['1/0', '1/1']);
  await submit({ sender: 2, nonce: 1, priority: 5, salt: 1 }, { sender: 2, nonce: 1, priority: 6, salt: 2 });
  await submit({ sender: 2, nonce: 0 });
  t.strictSame(ready(), ['1/0', '1/1', '2/0', '2/1'], 'of two that waited for the same place the better one got it');
});

t.test('limits: the worst leave first, and those that depend on them', async (t) => {
  const limits = { ready: { count: 4, bytes: 1e6 }, future: { count: 2, bytes: 1e6 }, perSender: 3 };
  const { submit, watch, ready, pool } = setUp(t, { limits });
  const cheap = await watch({ sender: 1, nonce: 0, priority: 1 });
  const after = await watch({ sender: 1, nonce: 1, priority: 9 });
  await submit({ sender: 2, nonce: 0, priority: 5 }, { sender: 3, nonce: 0, priority: 5 });
  await t.rejects(submit({ sender: 4, nonce: 0, priority: 1 }), { rpcCode: 1016, code: 'IMMEDIATELY_DROPPED' });
  t.strictSame(ready(), ['2/0', '3/0', '1/0', '1/1'], 'the youngest of equals goes');
  await submit({ sender: 5, nonce: 0, priority: 2 });
  t.strictSame(
    [cheap, after],
    [
      ['ready', 'dropped'],
      ['ready', 'dropped'],
    ],
  );
  t.strictSame(ready(), ['2/0', '3/0', '5/0']);

  const oldest = await watch({ sender: 6, nonce: 5 });
  await submit({ sender: 6, nonce: 6 }, { sender: 6, nonce: 7 });
  t.strictSame(oldest, ['future', 'dropped'], 'the future queue gives up its oldest');
  t.equal(pool.status().future, 2);
  await submit({ sender: 2, nonce: 1 }, { sender: 2, nonce: 3 });
  await t.rejects(submit({ sender: 2, nonce: 2 }), rpc(1016), 'no more than three of one sender');
  await t.resolves(submit({ sender: 2, nonce: 1, priority: 20 }), 'but replacing one of its own it may');

  const small = setUp(t, { limits: { ready: { count: 100, bytes: 1_000 } } });
  await small.submit({ sender: 1, nonce: 0, size: 500, priority: 5 }, { sender: 2, nonce: 0, size: 300, priority: 4 });
  await small.submit({ sender: 3, nonce: 0, size: 500, priority: 9 });
  t.strictSame(small.ready(), ['3/0'], 'bytes count as well');
});

t.test('from submission to finality', async (t) => {
  const { chain, watch, settle, pool } = setUp(t);
  const zero = await watch({ sender: 1, nonce: 0 });
  const one = await watch({ sender: 1, nonce: 1 });
  const three = await watch({ sender: 1, nonce: 3 });
  pool.broadcasted(await pool.submit(extrinsicOf({ sender: 2, nonce: 0 }), 'local'), ['peer']);
  const block = chain.extend(pool.ready());
  t.strictSame(zero, ['ready', 'inBlock 1:1']);
  t.strictSame(one, ['ready', 'inBlock 1:2']);
  t.strictSame(three, ['future']);
  t.equal(pool.status().ready, 0);
  await t.rejects(pool.submit(extrinsicOf({ sender: 1, nonce: 0 }), 'local'), rpc(1012), 'it has been');
  const two = extrinsicOf({ sender: 1, nonce: 2, salt: 77 });
  chain.extend([two]);
  t.strictSame(three, ['future', 'ready'], "somebody else's block made it ready");
  chain.finalize(block);
  t.strictSame(zero, ['ready', 'inBlock 1:1', 'finalized 1:1']);
  chain.extend(pool.ready());
  for (let i = 0; i < 3; i++) chain.extend();
  chain.finalize(chain.best);
  t.strictSame(three, ['future', 'ready', 'inBlock 3:1', 'finalized 3:1']);
  await settle();
  t.strictSame(pool.status(), { ready: 0, future: 0, bytes: 0 });
});

t.test('a reorganisation brings transactions back', async (t) => {
  const { chain, watch, submit, settle, ready, pool } = setUp(t);
  const zero = await watch({ sender: 1, nonce: 0 });
  const one = await watch({ sender: 1, nonce: 1 });
  const rival = await watch({ sender: 2, nonce: 0, salt: 1 });
  const root = chain.best;
  chain.extend(pool.ready());
  await submit({ sender: 1, nonce: 2 }, { sender: 3, nonce: 0 });
  t.strictSame(ready(), ['1/2', '3/0']);

  const otherwise = [extrinsicOf({ sender: 1, nonce: 0 }), extrinsicOf({ sender: 2, nonce: 0, salt: 2 })];
  const fork = chain.build(chain.build(root, otherwise), []);
  chain.adopt(fork);
  t.strictSame(zero, ['ready', 'inBlock 1:1', 'retracted 1', 'inBlock 1:1']);
  await settle();
  t.strictSame(one, ['ready', 'inBlock 1:2', 'retracted 1', 'ready']);
  t.strictSame(rival, ['ready', 'inBlock 1:3', 'retracted 1', 'invalid'], 'its nonce was used by another');
  t.strictSame(ready(), ['3/0', '1/1', '1/2'], 'the later nonce waits for the earlier one again');
  chain.extend(pool.ready());
  chain.finalize(chain.best);
  t.strictSame(one.slice(3), ['ready', 'inBlock 3:2', 'finalized 3:2']);

  // Valid only on the fork that is left: validated there without a requirement.
  const base = chain.best;
  chain.extend([extrinsicOf({ sender: 4, nonce: 0 })]);
  const orphan = await watch({ sender: 4, nonce: 1 });
  t.strictSame(orphan, ['ready']);
  chain.adopt(chain.build(chain.build(base, [extrinsicOf({ sender: 5, nonce: 0 })]), []));
  await settle();
  t.strictSame(ready(), ['4/0', '4/1'], 'the retracted one came back, and before the other');
});

t.test('what becomes invalid in the pool is found and leaves', async (t) => {
  const { chain, watch, settle, pool, submit, ready } = setUp(t);
  const mortal = await watch({ sender: 1, nonce: 0, until: 3 });
  const after = await watch({ sender: 1, nonce: 1 });
  const waiting = await watch({ sender: 2, nonce: 4, until: 2 });
  for (let i = 0; i < 2; i++) chain.extend();
  t.strictSame(waiting, ['future', 'invalid']);
  t.strictSame(mortal, ['ready']);
  chain.extend();
  t.strictSame(
    [mortal, after],
    [
      ['ready', 'invalid'],
      ['ready', 'invalid'],
    ],
    'with what came after it',
  );

  const broke = await watch({ sender: 3, nonce: 0 });
  await submit({ sender: 4, nonce: 0 });
  chain.judge = (extrinsic) =>
    specOf(extrinsic).sender === 3 ? { ok: false, error: { type: 'Invalid', value: { type: 'Payment' } } } : undefined;
  for (let i = 0; i < 4; i++) {
    chain.extend();
    await settle();
  }
  t.strictSame(broke, ['ready', 'invalid'], 'found by looking again');
  t.strictSame(ready(), ['4/0']);

  chain.judge = () => undefined;
  await submit({ sender: 4, nonce: 1 }, { sender: 4, nonce: 2 });
  const next = pool.bestFirst();
  next.next();
  const bad = next.next()!;
  next.markInvalid();
  t.equal(next.next(), undefined, 'nothing after an invalid one is given out');
  pool.reportInvalid([{ hash: bad.hash, error: { type: 'Invalid', value: { type: 'Payment' } } }]);
  t.strictSame(ready(), ['4/0']);
  t.equal(pool.remove([pool.get(await pool.submit(extrinsicOf({ sender: 8, nonce: 0 }), 'local'))!.hash]).length, 1);
});

t.test('watchers: finality that does not come, and those who stop watching', async (t) => {
  const { chain, pool, watch } = setUp(t);
  const first = await watch({ sender: 1, nonce: 0 });
  chain.extend(pool.ready());
  for (let nonce = 1; nonce <= 512; nonce++) {
    const extrinsic = extrinsicOf({ sender: 1, nonce });
    await pool.submitAndWatch(extrinsic, () => {});
    chain.extend([extrinsic]);
  }
  t.strictSame(first, ['ready', 'inBlock 1:1', 'finalityTimeout 1']);
  const heard: string[] = [];
  const stop = await pool.submitAndWatch(extrinsicOf({ sender: 2, nonce: 0 }), ({ type }) => heard.push(type));
  stop();
  chain.extend(pool.ready());
  t.strictSame(heard, ['ready']);
});

t.test('submissions of one turn are checked together, in order, and not without end', async (t) => {
  const { chain, pool, submit } = setUp(t, { maxIncoming: 1_000 });
  await submit(...Array.from({ length: 600 }, (_, nonce) => ({ sender: 1, nonce })));
  t.strictSame(chain.preverified, [512, 88]);
  t.equal(pool.status().ready, 600, 'each came after the one before');
  const outcomes = await Promise.allSettled(
    Array.from({ length: 1_010 }, (_, nonce) => pool.submit(extrinsicOf({ sender: 2, nonce }), 'local')),
  );
  const refused = outcomes.filter((each) => each.status === 'rejected');
  t.equal(refused.length, 10);
  t.match(refused[0], { reason: rpc(1016) });
  chain.preverify = async () => {
    throw Object.assign(new Error('too much'), { code: 'OVERLOADED' });
  };
  await t.rejects(submit({ sender: 3, nonce: 0 }), rpc(1016));
  chain.preverify = async () => {
    throw new Error('some thread died');
  };
  await t.resolves(submit({ sender: 3, nonce: 0 }), 'the runtime checks it then');
});

t.test('one without a signature, such as a report, leaves with the block that has it', async (t) => {
  const { chain, pool, settle } = setUp(t);
  const bare = (sender: number) => {
    const extrinsic = extrinsicOf({ sender, nonce: 0 });
    extrinsic[0] = 0x04;
    return extrinsic;
  };
  const statuses: string[] = [];
  await pool.submitAndWatch(bare(1), ({ type }) => statuses.push(type));
  await pool.submit(bare(2), 'local');
  t.equal(pool.status().ready, 2);
  const block = chain.extend([bare(1), bare(3)]);
  await settle();
  t.strictSame(pool.ready().map(toHex), [toHex(bare(2))]);
  chain.finalize(block);
  await settle();
  t.strictSame(statuses, ['ready', 'inBlock', 'finalized']);
});
