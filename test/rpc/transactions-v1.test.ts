/** `transactionWatch_v1` and `transaction_v1` by the JSON-RPC interface specification. */
import t from 'tap';
import { PoolError, type TransactionStatus } from '../../node/ports/chain.ts';
import { toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { type Caller, serveFake } from './fake-server.ts';

interface WatchEvent {
  readonly event: string;
  readonly block?: { readonly hash: string; readonly index: number } | null;
  readonly error?: string;
}

/** An extrinsic as the pool has it, and as the wire has it. */
const inner = (text: string) => utf8(text);
const wire = (text: string) => toHex(Uint8Array.of(text.length << 2, ...utf8(text)));
const watch = (caller: Caller, text: string) =>
  caller.hear<WatchEvent>('transactionWatch_v1_submitAndWatch', wire(text));
const settle = (caller: Caller) => caller.call('system_name');

t.test('a transaction from its validation to finality', async (test) => {
  const { chain, connect } = await serveFake(test);
  const caller = await connect();
  const block = chain.add();
  const place = (index: number) => ({ hash: toHex(block), index });
  const heard = await watch(caller, 'first');
  test.same(await heard.next(), { event: 'validated' });
  const tell = (text: string, status: TransactionStatus) => chain.watchers.get(toHex(inner(text)))!(status);
  tell('first', { type: 'broadcast', peers: ['a'] });
  tell('first', { type: 'inBlock', block, index: 2 });
  tell('first', { type: 'retracted', block });
  tell('first', { type: 'inBlock', block, index: 1 });
  tell('first', { type: 'finalized', block, index: 1 });
  test.same(
    await heard.take(4),
    [
      { event: 'bestChainBlockIncluded', block: place(2) },
      { event: 'bestChainBlockIncluded', block: null },
      { event: 'bestChainBlockIncluded', block: place(1) },
      { event: 'finalized', block: place(1) },
    ],
    'where it is in the best chain, and nothing of who has heard of it',
  );
  await test.rejects(
    caller.call('transactionWatch_v1_unwatch', heard.id),
    { code: -32602 },
    'finality ends the subscription',
  );
  test.equal(chain.watchers.size, 0, 'nothing is left of it');

  const ends: readonly (readonly [TransactionStatus, string])[] = [
    [{ type: 'usurped', by: block }, 'invalid'],
    [{ type: 'invalid', reason: 'outdated' }, 'invalid'],
    [{ type: 'dropped' }, 'dropped'],
    [{ type: 'finalityTimeout', block }, 'dropped'],
  ];
  for (const [status, event] of ends) {
    const own = await watch(caller, status.type);
    test.equal((await own.next()).event, 'validated');
    tell(status.type, status);
    test.match(await own.next(), { event, error: /.+/ }, status.type);
    await settle(caller);
    test.equal(own.waiting, 0);
    await test.rejects(caller.call('transactionWatch_v1_unwatch', own.id), { code: -32602 });
  }

  const unwatched = await watch(caller, 'unwatched');
  await unwatched.next();
  test.equal(await caller.call('transactionWatch_v1_unwatch', unwatched.id), null);
  test.equal(chain.watchers.size, 0);
  await test.rejects(caller.call('transactionWatch_v1_unwatch', unwatched.id), { code: -32602 }, 'twice');
  await test.rejects(caller.call('transactionWatch_v1_unwatch', 'nothing'), { code: -32602 });

  const other = await connect();
  await (await watch(other, 'left')).next();
  other.close();
  for (let tries = 0; chain.watchers.size > 0 && tries < 1_000; tries++) await new Promise(setImmediate);
  test.equal(chain.watchers.size, 0, 'who is gone watches nothing');
});

t.test('transactions that the pool refuses', async (test) => {
  const { chain, context, connect } = await serveFake(test);
  const caller = await connect();
  const refusals: readonly (readonly [Error, string])[] = [
    [new PoolError('INVALID', 1010, 'Invalid Transaction', 'Transaction is outdated'), 'invalid'],
    [new PoolError('UNKNOWN_VALIDITY', 1011, 'Unknown Transaction Validity', 'CannotLookup'), 'invalid'],
    [new PoolError('TEMPORARILY_BANNED', 1012, 'Transaction is temporarily banned'), 'invalid'],
    [new PoolError('ALREADY_IMPORTED', 1013, 'Transaction Already Imported', '0x00'), 'invalid'],
    [new PoolError('TOO_LOW_PRIORITY', 1014, 'Priority is too low: (1 vs 2)', 'too low'), 'invalid'],
    [new PoolError('CYCLE', 1015, 'Cycle Detected'), 'invalid'],
    [new PoolError('UNACTIONABLE', 1018, 'Unactionable', 'no'), 'invalid'],
    [new PoolError('IMMEDIATELY_DROPPED', 1016, 'Immediately Dropped', 'the limit'), 'dropped'],
    [new Error('the disk is on fire'), 'error'],
  ];
  for (const [problem, event] of refusals) {
    chain.refuse = () => problem;
    const heard = await watch(caller, 'refused');
    const told = await heard.next();
    test.match(told, { event, error: /.+/ }, problem.message);
    test.notMatch(told.error, /fire/, 'the inside of the node is not told');
    await settle(caller);
    test.equal(heard.waiting, 0, 'and no more');
    await test.rejects(caller.call('transactionWatch_v1_unwatch', heard.id), { code: -32602 });
  }
  test.match(context.faults.splice(0), [/could not be submitted.*fire/], 'whoever runs the node is told of it');
  chain.refuse = undefined;
  // Bytes that are none: an event, where hex that is none is an error.
  for (const bytes of ['0x', '0x00', '0xff', '0x0c00']) {
    const heard = await caller.hear<WatchEvent>('transactionWatch_v1_submitAndWatch', bytes);
    test.match(await heard.next(), { event: 'invalid', error: /.+/ }, bytes);
  }
  for (const bad of ['0x0', 'zz', 5, null]) {
    await test.rejects(caller.call('transactionWatch_v1_submitAndWatch', bad), { code: -32602 });
  }
  await test.rejects(caller.call('transactionWatch_v1_submitAndWatch'), { code: -32602 });
});

t.test('broadcasts go on until they are stopped, final, or nobody is there', async (test) => {
  const { chain, connect } = await serveFake(test);
  const caller = await connect();
  const broadcast = (text: string) => caller.call<string>('transaction_v1_broadcast', wire(text));
  const stop = (id: unknown) => caller.call('transaction_v1_stop', id);
  const isWatched = (text: string) => chain.watchers.has(toHex(inner(text)));

  const id = await broadcast('one');
  test.type(id, 'string');
  test.ok(isWatched('one'), 'it is in the pool');
  test.equal(await stop(id), null);
  test.notOk(isWatched('one'));
  await test.rejects(stop(id), { code: -32602 }, 'twice');
  await test.rejects(stop('nothing'), { code: -32602 });
  await test.rejects(stop(5), { code: -32602 });

  // Refused, it is offered again when the chain has gone on, and its sender is not told.
  let offered = 0;
  chain.refuse = () => {
    offered++;
    return new PoolError('INVALID', 1010, 'Invalid Transaction', 'Transaction will be valid in the future');
  };
  const early = await broadcast('early');
  test.type(early, 'string');
  test.equal(offered, 1);
  await settle(caller);
  chain.add();
  await settle(caller);
  test.equal(offered, 2);
  chain.refuse = undefined;
  chain.add();
  await settle(caller);
  test.ok(isWatched('early'));
  const tell = (text: string, status: TransactionStatus) => chain.watchers.get(toHex(inner(text)))!(status);
  tell('early', { type: 'dropped' });
  chain.watchers.delete(toHex(inner('early')));
  const block: Hash = chain.add();
  await settle(caller);
  test.ok(isWatched('early'), 'dropped from the pool, it is offered again');
  tell('early', { type: 'finalized', block, index: 0 });
  await settle(caller);
  await test.rejects(stop(early), { code: -32602 }, 'once it is final, nothing is to be stopped');

  for (const bytes of ['0x', '0xff', '0x0c00']) {
    const bad = await caller.call<string>('transaction_v1_broadcast', bytes);
    test.type(bad, 'string', 'of bytes that are no extrinsic nothing is said either');
    test.equal(await stop(bad), null);
  }
  for (const bad of ['0x0', 'zz', 5]) {
    await test.rejects(caller.call('transaction_v1_broadcast', bad), { code: -32602 });
  }

  const ids: string[] = [];
  for (;;) {
    const next = await broadcast(`n${ids.length}`);
    if (next === null) break;
    ids.push(next);
    if (ids.length > 1_000) break;
  }
  test.ok(ids.length >= 4 && ids.length < 1_000, `${ids.length} at once`);
  test.equal(await caller.call('transaction_v1_broadcast', '0xff'), null, 'what is bad counts too');
  const other = await connect();
  test.type(await other.call('transaction_v1_broadcast', wire('other')), 'string', 'the limit is one of a connection');
  await stop(ids[0]);
  test.type(await broadcast('again'), 'string');
  caller.close();
  other.close();
  for (let tries = 0; chain.watchers.size > 0 && tries < 1_000; tries++) await new Promise(setImmediate);
  test.equal(chain.watchers.size, 0, 'who is gone broadcasts nothing');
  test.equal(chain.listeners, 0);
});
