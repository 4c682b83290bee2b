/** The client against a whole node: the pallets' own definitions from a storage key to a failure's words. */
import t from 'tap';
import { KeySigner } from '../../../node/keystore/key-signer.ts';
import { callOf, toAccount } from '../../../rpc/client/call.ts';
import { CallFailed, failedWith, type LedgerError } from '../../../rpc/client/errors.ts';
import { Ledger } from '../../../rpc/client/ledger.ts';
import * as pallets from '../../../rpc/client/pallets.ts';
import type { Scheme } from '../../../rpc/client/signer.ts';
import type { BaseModelId, DatanetId } from '../../../runtime/primitives/attribution/ids.ts';
import { toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId } from '../../../runtime/primitives/types.ts';
import { hashing, OPEN, startLedger } from '../../main-job/support.ts';
import { CutWire } from '../../support/cut-wire.ts';
import { until } from '../../support/until.ts';

const { balances, compute, datanets, models, sudo, system, transactionPayment, utility, proxy, multisig } = pallets;
const key = (uri: string, scheme?: Scheme) => KeySigner.fromUri(uri, hashing, scheme);
const [alice, bob, charlie, dave] = [key('//Alice'), key('//Bob'), key('//Charlie'), key('//Dave')] as const;

t.test('a node and its clients', async (suite) => {
  const { node } = await startLedger(suite, { slotDurationMs: 300 });
  const ledger = await Ledger.connect(node.rpc.ws);
  suite.teardown(() => ledger.close());
  const freeOf = async (who: AccountId) => (await ledger.read(system.store.Account, who)).data.free;

  suite.test('values and maps, of one block, with their keys', async (test) => {
    test.equal(await ledger.read(compute.store.Workers, bob.account), undefined, 'nothing is stored');
    test.equal(
      await ledger.read(compute.store.Parameters).then(({ leaseBlocks }) => leaseBlocks > 0),
      true,
      'a default',
    );
    const [account, count, worker] = await ledger.readTogether([
      ledger.query(system.store.Account, alice.account),
      ledger.query(datanets.store.NextId),
      ledger.query(compute.store.Workers, alice.account),
    ]);
    test.ok(account.data.free > 0n);
    test.same([count, worker], [0, undefined]);

    // More entries than a page has, put there by root.
    const rewards = Array.from({ length: 1_300 }, (_, at) => ({
      who: asAccountId(hashing.blake2_256(utf8(`earner ${at}`))),
      reward: { claimable: BigInt(at), earned: BigInt(2 * at) },
    }));
    const { Rewards } = pallets.attribution.store;
    const items = rewards.map(({ who, reward }): [Uint8Array, Uint8Array] => [
      Rewards.key(hashing, who),
      encode(pallets.attribution.reward, reward),
    ]);
    await ledger.submit(alice, sudo.calls.sudo, { call: callOf(system.calls.setStorage, { items }) });
    const found = new Map<string, bigint>();
    for await (const [who, { claimable }] of ledger.entries(Rewards)) found.set(toHex(who), claimable);
    test.equal(found.size, 1_300, 'every page is there');
    test.ok(
      rewards.every(({ who, reward }) => found.get(toHex(who)) === reward.claimable),
      'with the keys decoded',
    );
    const keys: AccountId[] = [];
    for await (const who of ledger.keys(Rewards)) keys.push(who);
    test.equal(keys.length, 1_300);
    const some = await ledger.readMany(Rewards, [rewards[7]!.who, bob.account, rewards[1_299]!.who]);
    test.same(
      some.map(({ claimable }) => claimable),
      [7n, 0n, 1_299n],
    );
  });

  suite.test('a page after the other is of the same block, whatever happens meanwhile', async (test) => {
    const { Rewards } = pallets.attribution.store;
    const fixed = await ledger.fixed();
    const entries = fixed.entries(Rewards);
    const first = await entries.next();
    await ledger.submit(alice, sudo.calls.sudo, {
      call: callOf(system.calls.killPrefix, { prefix: Rewards.prefix(hashing), subkeys: 10_000 }),
    });
    let count = first.done ? 0 : 1;
    for await (const _ of entries) count++;
    test.equal(count, 1_300);
    test.same((await ledger.entries(Rewards).next()).done, true, 'and afterwards there is nothing');
  });

  suite.test('calls with named arguments, events with named fields', async (test) => {
    const made = await ledger.submit(bob, datanets.calls.create, {
      name: 'Things',
      description: 'Animals and stones.',
      schema: 'prompt and response',
      licence: 'CC-BY-4.0',
      admission: { type: 'Open' },
      stake: OPEN,
      dedupThreshold: 60_000,
      accessPrice: OPEN,
    });
    const { id, owner } = made.event(datanets.events.Created);
    test.same(toHex(owner), toHex(bob.account));
    test.equal((await ledger.read(datanets.store.Datanets, id))?.name, 'Things');
    test.ok(made.event(transactionPayment.events.TransactionFeePaid).actualFee > 0n);
    test.same(made.events(models.events.Ordered), []);
    test.throws(() => made.event(models.events.Ordered), { code: 'NO_EVENT' });
    const block = await ledger.rpc.call<{ block: { extrinsics: string[] } }>('chain_getBlock', made.block);
    const wire = block.block.extrinsics[made.index]!;
    test.equal(toHex(hashing.blake2_256(Buffer.from(wire.slice(2), 'hex'))), made.hash, 'named as everybody names it');
  });

  suite.test('a failure is the pallet’s own', async (test) => {
    const problem = await ledger.submit(bob, models.calls.retireAdapter, { adapter: 7 as never }).catch((each) => each);
    test.ok(problem instanceof CallFailed);
    test.ok(problem.is(models.errors.UnknownAdapter));
    test.notOk(problem.is(models.errors.NotOwner));
    test.notOk(problem.is(datanets.errors.NotOwner), 'the same name in another pallet is another error');
    test.match(problem, { code: 'Models.UnknownAdapter', docs: models.errors.UnknownAdapter.docs });
    test.ok(failedWith(problem, models.errors.UnknownAdapter));
    await test.rejects(
      ledger.submit(bob, balances.calls.transferKeepAlive, { dest: toAccount(alice.account), value: 10n ** 30n }),
      { code: /^(Token|Arithmetic)\./ },
    );
    await test.rejects(ledger.submit(bob, system.calls.setStorage, { items: [] }), { code: 'BadOrigin' });
    await test.rejects(
      ledger.submit(bob, balances.calls.transferKeepAlive, { dest: toAccount(alice.account), value: -1n }),
      { code: 'OUT_OF_RANGE' },
      'nothing was sent',
    );
  });

  suite.test('many at once of one account, each with its nonce', async (test) => {
    const receiver = key('//Receiver//many').account;
    const { nonce } = await ledger.read(system.store.Account, charlie.account);
    await Promise.all(
      Array.from({ length: 12 }, () =>
        ledger.submit(charlie, balances.calls.transferKeepAlive, { dest: toAccount(receiver), value: OPEN }),
      ),
    );
    test.equal(await freeOf(receiver), 12n * OPEN);
    test.equal((await ledger.read(system.store.Account, charlie.account)).nonce, nonce + 12);

    const other = await Ledger.connect(node.rpc.ws);
    const send = (from: Ledger) =>
      from.submit(charlie, balances.calls.transferKeepAlive, { dest: toAccount(receiver), value: OPEN });
    await Promise.all([send(ledger), send(other), send(ledger), send(other)]);
    other.close();
    test.equal(await freeOf(receiver), 16n * OPEN, 'two clients with one key do not lose a transaction');
  });

  suite.test('calls in calls, and what became of them', async (test) => {
    const receiver = key('//Receiver//batch').account;
    const transfer = (value: bigint) => callOf(balances.calls.transferKeepAlive, { dest: toAccount(receiver), value });
    const made = await ledger.submit(dave, utility.calls.batchAll, { calls: [transfer(OPEN), transfer(2n * OPEN)] });
    test.equal(made.events(utility.events.ItemCompleted).length, 2);
    test.equal(await freeOf(receiver), 3n * OPEN);
    const half = await ledger.submit(dave, utility.calls.batch, { calls: [transfer(OPEN), transfer(10n ** 30n)] });
    const { index, error } = half.event(utility.events.BatchInterrupted);
    test.equal(index, 1);
    test.match(await ledger.failureOf(error), { code: /^(Token|Arithmetic)\./ });

    await ledger.submit(dave, proxy.calls.addProxy, {
      delegate: toAccount(bob.account),
      proxyType: { type: 'Any' },
      delay: 0,
    });
    const acted = await ledger.submit(bob, proxy.calls.proxy, {
      real: toAccount(dave.account),
      forceProxyType: undefined,
      call: transfer(OPEN),
    });
    test.ok(acted.event(proxy.events.ProxyExecuted).result.ok);
    test.equal(await freeOf(receiver), 5n * OPEN);
    const single = await ledger
      .submit(bob, multisig.calls.as_multi_threshold_1, { otherSignatories: [], call: transfer(OPEN) })
      .catch((each) => each);
    test.ok(failedWith(single, multisig.errors.TooFewSignatories));
  });

  suite.test('every scheme signs, and a wallet may take its time', async (test) => {
    for (const scheme of ['sr25519', 'ed25519', 'ecdsa'] as const) {
      const signer = key(`//Signer//${scheme}`, scheme);
      await ledger.submit(dave, balances.calls.transferKeepAlive, {
        dest: toAccount(signer.account),
        value: 5n * OPEN,
      });
      const slow = {
        scheme,
        publicKey: signer.publicKey,
        account: signer.account,
        sign: async (message: Uint8Array) => signer.sign(message),
      };
      const made = await ledger.submit(slow, system.calls.remarkWithEvent, { remark: utf8('Hello') });
      test.same(made.event(system.events.Remarked).sender, signer.account, scheme);
    }
  });

  suite.test('a preview says what the bytes say and what they cost', async (test) => {
    const call = callOf(utility.calls.batchAll, {
      calls: [callOf(balances.calls.transferKeepAlive, { dest: toAccount(alice.account), value: 3n })],
    });
    const { nonce } = await ledger.read(system.store.Account, bob.account);
    const preview = await ledger.preview(bob, call);
    test.match(preview, {
      nonce,
      call: {
        pallet: 'Utility',
        call: 'batch_all',
        args: {
          calls: [
            {
              pallet: 'Balances',
              call: 'transfer_keep_alive',
              args: { dest: { Id: '5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY' }, value: '3' },
            },
          ],
        },
      },
    });
    const made = await ledger.send(bob, call);
    test.ok(made.event(transactionPayment.events.TransactionFeePaid).actualFee <= preview.fee);
    test.equal((await ledger.read(system.store.Account, bob.account)).nonce, nonce + 1, 'the preview sent nothing');
    await test.rejects(
      ledger.simulate(bob, callOf(models.calls.retireAdapter, { adapter: 9 as never })),
      { code: 'Models.UnknownAdapter' },
      'what would fail is known before it is sent',
    );
    await ledger.simulate(bob, call);
    test.equal((await ledger.read(system.store.Account, bob.account)).nonce, nonce + 1);
  });

  suite.test('transactions that the pool does not keep', async (test) => {
    const remark = (text: string) => callOf(system.calls.remark, { remark: utf8(text) });
    const { nonce } = await ledger.read(system.store.Account, dave.account);
    await test.rejects(ledger.send(dave, remark('old'), { nonce: nonce - 1 }), {
      code: 'REFUSED',
      message: /outdated/,
    });
    await test.rejects(ledger.send(key('//Nobody'), remark('poor')), { code: 'REFUSED', message: /pay/ });
    // A better one with the same nonce takes the place of one that waits; where a block comes in between, it is tried again.
    let code: string | undefined;
    for (let attempt = 0; attempt < 10 && code !== 'USURPED'; attempt++) {
      const { nonce: next } = await ledger.read(system.store.Account, dave.account);
      const first = ledger.send(dave, remark('first'), { nonce: next });
      const second = ledger.send(dave, remark('second'), { nonce: next, tip: OPEN });
      code = await first.then(
        () => undefined,
        (problem: LedgerError) => problem.code,
      );
      await second.catch(() => {});
    }
    test.equal(code, 'USURPED');
    const { nonce: after } = await ledger.read(system.store.Account, dave.account);
    const late = await ledger.send(dave, remark('never'), { nonce: after + 9, withinMs: 700 }).catch((each) => each);
    test.match(late, { code: 'NOT_INCLUDED' });
    const stop = new AbortController();
    const aborted = ledger.send(dave, remark('never'), { nonce: after + 10, signal: stop.signal });
    const refused = test.rejects(aborted);
    stop.abort();
    await refused;
    const short = ledger.send(dave, remark('never'), { nonce: after + 11, mortality: 8 });
    await test.rejects(short, { code: 'INVALID' }, 'its time is over, and it says so');
    await test.rejects(ledger.send(dave, remark('odd'), { mortality: 5 }), { code: 'BAD_MORTALITY' });
    await ledger.send(dave, remark('for ever'), { mortality: 'immortal' });
    await ledger.send(dave, remark('long'), { mortality: 16_384 });
  });

  suite.test('watching: one subscription for everything, through a lost connection', async (test) => {
    const wire = await CutWire.before(node.rpc.ws);
    test.teardown(() => wire.close());
    const watcher = await Ledger.connect(wire.url, { reconnect: true });
    test.teardown(() => watcher.close());
    const stop = new AbortController();
    const seen: bigint[] = [];
    const heights: number[] = [];
    const receiver = key('//Receiver//watched').account;
    const following = Promise.all([
      (async () => {
        for await (const { data } of watcher.watch(system.store.Account, receiver, stop)) seen.push(data.free);
      })(),
      (async () => {
        for await (const number of watcher.watch(system.store.Number, stop)) heights.push(number);
      })(),
    ]);
    const pay = () =>
      ledger.submit(alice, balances.calls.transferKeepAlive, { dest: toAccount(receiver), value: OPEN });
    await until('the first values', () => seen.length > 0 && heights.length > 0);
    test.equal(wire.count('state_subscribeStorage'), 1, 'two values, one subscription');
    await pay();
    await until('the first payment', () => seen.includes(OPEN));
    wire.cut();
    await pay();
    await until('what happened meanwhile', () => seen.includes(2n * OPEN));
    await pay();
    await until('what happens afterwards', () => seen.includes(3n * OPEN));
    test.same(seen, [0n, OPEN, 2n * OPEN, 3n * OPEN], 'nothing is told twice');
    test.ok(heights.every((height, at) => at === 0 || height > heights[at - 1]!));
    test.equal((await watcher.read(system.store.Account, receiver)).data.free, 3n * OPEN, 'and questions work again');
    stop.abort();
    await following;
  });

  suite.test('a transaction whose connection breaks is found in its block', async (test) => {
    const wire = await CutWire.before(node.rpc.ws);
    test.teardown(() => wire.close());
    const client = await Ledger.connect(wire.url, { reconnect: true });
    test.teardown(() => client.close());
    const receiver = key('//Receiver//cut').account;
    const sending = client.submit(charlie, balances.calls.transferKeepAlive, {
      dest: toAccount(receiver),
      value: OPEN,
    });
    await until('it is on its way', () => wire.count('author_submitAndWatchExtrinsic') > 0);
    wire.cut();
    const made = await sending;
    test.equal(made.event(balances.events.Transfer).amount, OPEN);
    test.equal(await freeOf(receiver), OPEN, 'once, not twice');

    const once = await Ledger.connect(wire.url);
    const lost = once.submit(charlie, balances.calls.transferKeepAlive, { dest: toAccount(receiver), value: OPEN });
    await until('it is on its way too', () => wire.count('author_submitAndWatchExtrinsic') > 1);
    wire.cut();
    await test.rejects(lost, { code: 'UNKNOWN_OUTCOME' }, 'without a way back nobody can say');
    await once.closed;
    await test.rejects(once.bestNumber(), { code: 'CONNECTION_LOST' });
  });

  suite.test('a chain that runs another runtime is told apart', async (test) => {
    const wire = await CutWire.before(node.rpc.ws, (text) => text.replaceAll('"specVersion":1,', '"specVersion":2,'));
    test.teardown(() => wire.close());
    const client = await Ledger.connect(wire.url);
    test.teardown(() => client.close());
    test.match(client.runtime, { specName: 'openledger', specVersion: 2 });
    test.notOk(client.speaksItsLanguage);
    await test.rejects(client.read(compute.store.Parameters), { code: 'OTHER_RUNTIME' });
    await test.rejects(client.submit(alice, system.calls.remark, { remark: utf8('?') }), { code: 'OTHER_RUNTIME' });
    test.throws(() => client.watch(system.store.Number), { code: 'OTHER_RUNTIME' });
    test.ok((await client.bestNumber()) > 0, 'what no definition is needed for goes on');
  });

  suite.test('keys of several parts', async (test) => {
    const { Committed } = datanets.store;
    const found: unknown[] = [];
    for await (const [parts] of ledger.entries(Committed, 0 as DatanetId)) found.push(parts);
    test.same(found, []);
    test.equal(await ledger.read(models.store.BaseModels, 0 as BaseModelId), undefined);
  });
});
