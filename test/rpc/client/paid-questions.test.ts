/** The money of paid questions without a gateway: which adapter is meant, what may be promised, what is remembered. */
import t from 'tap';
import { KeySigner } from '../../../node/keystore/key-signer.ts';
import { callOf } from '../../../rpc/client/call.ts';
import type { PaidFailure } from '../../../rpc/client/job-failure.ts';
import { Ledger } from '../../../rpc/client/ledger.ts';
import * as pallets from '../../../rpc/client/pallets.ts';
import { type PromiseTerms, Purse, type PurseStore } from '../../../rpc/client/purse.ts';
import { chooseAdapter, type ServedAdapter } from '../../../rpc/client/served-adapters.ts';
import { openSession, sessionOf } from '../../../rpc/client/sessions.ts';
import type { SpendingLimits } from '../../../rpc/client/spending-limits.ts';
import type { AdapterId, SessionId } from '../../../runtime/primitives/attribution/ids.ts';
import { skeletonOf } from '../../../runtime/primitives/attribution/names.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import { hashing, OPEN, startLedger } from '../../main-job/support.ts';
import { openFor } from '../../support/sessions.ts';

const key = (uri: string) => KeySigner.fromUri(uri, hashing);
const [alice, bob, worker, payer] = [key('//Alice'), key('//Bob'), key('//Ferdie'), key('//Eve')] as const;
const codeOf = (body: Promise<unknown>): Promise<string> =>
  body.then(
    () => 'no error',
    (problem: PaidFailure) => problem.code,
  );

t.test('paid questions', async (suite) => {
  const { node } = await startLedger(suite, { slotDurationMs: 200 });
  const ledger = await Ledger.connect(node.rpc.ws, { reconnect: true });
  suite.teardown(() => ledger.close());
  const { compute, models, sudo, system } = pallets;
  const capabilities = {
    training: false,
    serving: true,
    auditing: false,
    engine: 'none',
    memoryMiB: 1,
    baseModels: [],
  };
  await ledger.submit(worker, compute.calls.register, { bond: 1_000n * OPEN, capabilities });

  suite.test('an adapter is meant by its number, or by the name that it bears on the chain', async (test) => {
    const entry = (name: string, target: AdapterId): [Uint8Array, Uint8Array] => [
      models.store.Names.key(hashing, skeletonOf(name)),
      encode(models.store.Names.info.value, {
        ...{ name, owner: alice.account, deposit: 0n, target: { type: 'Adapter', value: target } },
      }),
    ];
    const items = [entry('recipes', 0 as AdapterId), entry('salads-2', 2 as AdapterId)];
    await ledger.submit(alice, sudo.calls.sudo, { call: callOf(system.calls.setStorage, { items }) });
    const offer = (adapter: number, name: string): ServedAdapter => ({
      ...{ adapter: adapter as AdapterId, name, worker: worker.account, waiting: 0 },
    });
    // Two workers serve the first one; the node calls another one by its name, and one by a number.
    const served = [
      offer(1, 'recipes'),
      offer(0, 'recipes'),
      offer(0, 'recipes'),
      offer(3, 'adapter:0'),
      offer(4, 'x'),
    ];
    const chosen = (model: string) => chooseAdapter(ledger, served, model);
    test.equal(await chosen('recipes'), 0, 'the chain knows whose name it is');
    test.equal(await chosen('adapter:1'), 1);
    test.equal(await chosen('adapter:0'), 0);
    for (const unknown of [
      'soups',
      'x',
      'salads-2',
      'salads.2',
      'Recipes',
      'adapter:9',
      'adapter:-1',
      'adapter:',
      '',
    ]) {
      await test.rejects(chosen(unknown), { code: 'NOT_SERVED' }, unknown);
    }
  });

  const terms = (question: string, price = { input: 2n, output: 3n }): PromiseTerms => ({
    ...{ worker: worker.account, adapter: 0 as AdapterId, price, markup: 0, question },
    terms: { input: { type: 'Text', value: question }, maxTokens: 1, temperature: 0, topP: 0, seed: 1n, stop: [] },
  });
  let signed = 0;
  const session = {
    ...{ scheme: payer.scheme, publicKey: payer.publicKey, account: payer.account },
    async sign(message: Uint8Array) {
      signed++;
      return payer.sign(message);
    },
  };
  const remembered = (): PurseStore & { text: string | undefined } => ({
    text: undefined,
    async read() {
      return this.text;
    },
    async write(text) {
      this.text = text;
    },
  });

  suite.test('nothing is signed that a user does not allow', async (test) => {
    const id = await openFor(ledger, payer, session.publicKey, worker, 10n * OPEN);
    const open = (limits?: SpendingLimits) => Purse.open({ ledger, key: session, session: id, limits });
    const before = signed;
    const refused = async (limits: SpendingLimits, most: bigint) =>
      codeOf((await open(limits)).promise(terms('?'), most));
    test.equal(await refused({ inputPrice: 1n }, OPEN), 'PRICE_LIMIT');
    test.equal(await refused({ outputPrice: 2n }, OPEN), 'PRICE_LIMIT');
    test.equal(await refused({ request: OPEN - 1n }, OPEN), 'REQUEST_LIMIT');
    test.equal(await refused({ day: OPEN - 1n }, OPEN), 'DAY_LIMIT');
    const own = await open();
    test.equal(await codeOf(own.promise(terms('?'), OPEN, { request: 1n })), 'REQUEST_LIMIT', 'of one question too');
    test.equal(signed, before, 'no voucher was signed');
    const generous = await open({ inputPrice: 2n, outputPrice: 3n, request: OPEN, day: OPEN });
    const { voucher } = await generous.promise(terms('?'), OPEN);
    test.equal(voucher.payload.cumulative, OPEN, 'up to the limit is within it');
    test.equal(signed, before + 1);
  });

  suite.test('a day’s questions together, whatever is under way and whenever it was', async (test) => {
    const id = await openFor(ledger, payer, session.publicKey, worker, 10n * OPEN);
    const store = remembered();
    const options = { ledger, key: session, session: id, limits: { day: 3n * OPEN }, store };
    const purse = await Purse.open(options);
    const all = await Promise.allSettled(['a', 'b', 'c', 'd', 'e'].map((each) => purse.promise(terms(each), OPEN)));
    const made = all.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    test.equal(made.length, 3, 'at the same time, no more than the day allows');
    const cumulative = made.map(({ voucher }) => voucher.payload.cumulative).sort((a, b) => Number(a - b));
    test.same(cumulative, [OPEN, 2n * OPEN, 3n * OPEN], 'each counts those before it');
    await made[0]!.spend(OPEN / 2n);
    await made[1]!.spend(0n);
    await made[2]!.leave();
    test.equal(purse.spentToday, OPEN + OPEN / 2n, 'what nobody heard of counts in full');
    await purse.written();

    const again = await Purse.open(options);
    test.equal(again.spentToday, OPEN + OPEN / 2n, 'it is remembered');
    test.equal(again.spent, OPEN / 2n);
    test.equal(await codeOf(again.promise(terms('f'), 2n * OPEN)), 'DAY_LIMIT');
    const third = again.again('c');
    test.same(third?.voucher, made[2]!.voucher, 'the same voucher for who asks again');
    await third!.spend(0n);
    test.equal(await codeOf(again.promise(terms('f'), 2n * OPEN)), 'no error');
    const text = JSON.parse(store.text!) as { day: { number: number } };
    const yesterday = { ...text, day: { ...text.day, number: text.day.number - 1 }, open: [] };
    store.text = JSON.stringify(yesterday);
    test.equal((await Purse.open(options)).spentToday, 0n, 'a new day');
  });

  suite.test('sessions that cannot pay', async (test) => {
    const id = await openSession(ledger, payer, session.publicKey, OPEN);
    const poor = await Purse.open({ ledger, key: session, session: id });
    test.equal(await codeOf(poor.promise(terms('?'), 2n * OPEN)), 'DEPOSIT_SPENT');
    test.equal(await codeOf(Purse.open({ ledger, key: session, session: 999n as SessionId })), 'NO_SESSION');
    test.equal(await codeOf(Purse.open({ ledger, key: session })), 'NO_SESSION');
    test.equal(await codeOf(Purse.open({ ledger, key: bob, session: id })), 'OTHER_KEY');
    await ledger.submit(payer, pallets.inference.calls.closeSession, { session: id });
    test.equal(await codeOf(poor.promise(terms('?'), 1n)), 'SESSION_CLOSED');
    const broke = { payer: key('//Nobody'), deposit: OPEN };
    const hopeless = await Purse.open({ ledger, key: session, session: id, funding: broke });
    test.equal(await codeOf(hopeless.promise(terms('?'), 1n)), 'NO_FUNDS');
  });

  suite.test('a payer behind it tops up, and opens another session when one is closed', async (test) => {
    const store = remembered();
    const purse = await Purse.open({ ledger, key: session, funding: { payer, deposit: OPEN }, store });
    const first = purse.session;
    const promised = await purse.promise(terms('?'), 3n * OPEN);
    test.ok((await sessionOf(ledger, first))!.allocated >= 3n * OPEN, 'topped up by what was missing');
    await promised.spend(OPEN);
    await ledger.submit(payer, pallets.inference.calls.closeSession, { session: first });
    await purse.promise(terms('?'), OPEN);
    test.not(purse.session, first);
    test.equal(purse.spentToday, 2n * OPEN, 'the day goes on');
    await purse.written();
    test.equal((await Purse.open({ ledger, key: session, store })).session, purse.session, 'and is remembered');
  });
});
