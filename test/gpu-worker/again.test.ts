/**
 * Answers that are lost on their way: whoever asks again hears the same answer, with the receipt that was signed for it, and it
 * is paid once. Workers are killed behind the receipt and in the middle of an answer, the node and the gateway restart.
 */
import { join } from 'node:path';
import t from 'tap';
import { runningWorkers } from '../../gpu-worker/operator/running-workers.ts';
import type { Ledger } from '../../rpc/client/ledger.ts';
import { awaitAdapter } from '../../rpc/client/models.ts';
import { pendingBatches } from '../../rpc/client/rewards.ts';
import { sessionOf } from '../../rpc/client/sessions.ts';
import { signVoucher } from '../../rpc/client/vouchers.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import { type GenerationRequest, generationRequest } from '../../runtime/primitives/attribution/messages.ts';
import { signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { hashing, OPEN, openGateway, startLedger, temporaryDirectory } from '../main-job/support.ts';
import { openFor } from '../support/sessions.ts';
import { until } from '../support/until.ts';
import { type Answer, ask, bodyOf, receiptOf, saysIt, stream } from './asking.ts';
import { balanced, order, PRICE, setLeases, world } from './ledger-world.ts';
import { spawnWorker, startLine } from './line.ts';

/** Workers take their time to come back on a busy machine. */
const PATIENCE_MS = 150_000;

type Told = { readonly type: string; readonly code?: string; readonly reason?: string; readonly receipt?: string };
/** A request that a test has signed itself, straight to the node: the outcome, or the code that it is refused with. */
function put(ledger: Ledger, request: GenerationRequest): Promise<Told> {
  return new Promise((resolve) => {
    ledger.rpc
      .subscribe('inference_generate', 'inference_cancel', [toHex(encode(generationRequest, request))], (each) => {
        const told = each as Told;
        if (told.type === 'answer' || told.type === 'error') resolve(told);
      })
      .catch(({ data }: { data: string }) => resolve({ type: 'refused', code: data }));
  });
}

t.test('an answer is paid once', { timeout: 220_000 }, async (test) => {
  const basePath = await temporaryDirectory(test);
  const chain = await world(test, { basePath });
  const { pair, node } = chain;
  const url = node.rpc.ws;
  let { ledger } = chain;
  // Nothing of the kind shall end in between, however busy the machine is.
  await setLeases(chain, 2_000);
  const line = await startLine(url);
  test.teardown(() => line.close());
  const bob = pair('//Bob');
  const directory = await temporaryDirectory(test);
  const settings = { uri: '//Bob', directory, settleMs: 3_600_000, checkpointSteps: 50 };
  const start = (node: string, settleMs = settings.settleMs) => spawnWorker(test, { ...settings, node, settleMs });
  const answersOf = async () => (await runningWorkers(directory)).at(0)?.answers;

  let worker = start(line.url);
  const id = await order(chain, 'things');
  const adapter = (await awaitAdapter(ledger, id)) as AdapterId;
  const payer = pair('//Eve');
  const key = payer.derive('//session');
  const session = await openFor(ledger, payer, key.publicKey, bob, 50n * OPEN);
  const stateFile = join(await temporaryDirectory(test), 'gateway.json');
  const open = () => openGateway(test, { node: url, key, session, stateFile, patienceMs: PATIENCE_MS });
  let gateway = await open();
  const served = (at: Ledger) =>
    until('the adapter', async () => {
      const models = await at.rpc.call<{ worker: string }[]>('inference_models');
      return models.some((each) => each.worker === toHex(bob.publicKey));
    });
  await served(ledger);
  const heard: Answer[] = [];

  /** One that is heard, and after which the worker knows the session. */
  const warm = async (prompt: string): Promise<void> => {
    heard.push(await ask(gateway.url, bodyOf(prompt)));
    test.equal(heard.at(-1)!.status, 200);
  };

  // 1. Killed when the receipt is in the journal and nobody has heard of it.
  await warm('The wren lives');
  line.mute();
  const lost = ask(gateway.url, bodyOf('The otter lives'));
  await until('the receipt in the journal', async () => (await answersOf()) === 2);
  await worker.kill();
  worker = start(url);
  const found = await lost;
  heard.push(found);
  test.equal(found.status, 200, `answered: ${found.code}`);
  test.ok(saysIt(found), 'text and receipt are of one answer');
  test.equal(await answersOf(), 0, 'the worker that came back has not made it again');

  // 2. Killed in the middle of an answer that is streamed.
  const long = { max_tokens: 400, temperature: 2, stream: true };
  const broken = await stream(gateway.url, bodyOf('The heron lives', long), async () => {
    await worker.kill();
    worker = start(url);
  });
  heard.push(broken);
  test.equal(broken.code, undefined);
  test.ok(saysIt(broken), 'the stream goes on where it broke off');

  // 3. The node goes away in the middle, and comes back with its database alone.
  const { port } = new URL(url);
  const cut = await stream(gateway.url, bodyOf('The newt lives', long), async () => {
    await chain.stop();
    ({ ledger } = await startLedger(test, { basePath, port: Number(port) }));
  });
  heard.push(cut);
  test.equal(cut.code, undefined);
  test.ok(saysIt(cut), 'the stream goes on over another connection');
  await served(ledger);

  // 4. The gateway goes away; the one after it asks under the voucher of the one before.
  const before = (await answersOf())!;
  let closed: Promise<void> = Promise.resolve();
  const half = stream(gateway.url, bodyOf('The stoat lives', long), async () => {
    closed = gateway.close();
    await closed;
  }).catch(() => undefined);
  test.equal((await half)?.attribution, undefined, 'nobody heard its end');
  await closed;
  await until('its end at the worker', async () => (await answersOf()) === before + 1);
  gateway = await open();
  const second = await stream(gateway.url, bodyOf('The stoat lives', long), async () => {});
  heard.push(second);
  test.ok(saysIt(second));
  test.equal(await answersOf(), before + 1, 'it is the answer that was made for the first one');
  const third = await ask(gateway.url, bodyOf('The stoat lives', { ...long, stream: false }));
  heard.push(third);
  test.not(
    receiptOf(third).voucher.payload.nonce,
    receiptOf(second).voucher.payload.nonce,
    'heard: the next one is new',
  );

  // 5. Payers who try to get more under one voucher.
  const own = await openFor(ledger, payer, payer.publicKey, bob, 5n * OPEN);
  const terms = (value: string) => ({
    ...{ input: { type: 'Text' as const, value }, maxTokens: 12, temperature: 0, topP: 1_000_000_000, seed: 1n },
    stop: [],
  });
  const signed = async (nonce: bigint, value: string, cumulative = OPEN): Promise<GenerationRequest> => ({
    voucher: await signVoucher(hashing, payer, {
      ...{ chain: ledger.genesisHash, session: own, worker: bob.account, nonce },
      ...{ cumulative, most: OPEN, adapter, price: PRICE, markup: 100_000_000, terms: terms(value) },
    }),
    ...terms(value),
  });
  const first = await signed(10n, 'The wren lives');
  const told = await put(ledger, first);
  test.equal(told.type, 'answer');
  test.same(await put(ledger, { ...first, ...terms('The swan lives') }), { type: 'refused', code: 'BAD_VOUCHER' });
  const other = await put(ledger, await signed(10n, 'The swan lives'));
  test.same([other.code, other.reason], ['WORKER_REFUSED', 'STALE_VOUCHER'], 'another voucher of that number');
  test.equal((await put(ledger, first)).receipt, told.receipt, 'the same receipt, from the node');
  const late = await put(ledger, await signed(9n, 'The vole lives', 1n));
  test.equal(late.type, 'answer', 'an earlier number, if a later voucher covers it');
  const poor = await put(ledger, await signed(11n, 'The mole lives', 1n));
  test.same([poor.code, poor.reason], ['WORKER_REFUSED', 'VOUCHER_TOO_SMALL'], 'the newest one has to pay for all');
  await worker.kill();
  // From here on it settles.
  worker = start(url, 1_000);
  await worker.says(/serving adapter 0/);
  await served(ledger);
  test.equal((await put(ledger, first)).receipt, told.receipt, 'the same receipt, from the node that kept it');
  const due = () => heard.reduce((sum, { attribution }) => sum + BigInt(attribution!.fee), 0n);
  await until('settlement', async () => (await sessionOf(ledger, session))!.settled === due());
  const feesOf = (each: Told): bigint => decode(signedInferenceReceipt, fromHex(each.receipt!)).payload.fee;
  await until('theirs', async () => (await sessionOf(ledger, own))!.settled === feesOf(told) + feesOf(late));
  const stale = await put(ledger, await signed(8n, 'The vole lives'));
  test.same([stale.code, stale.reason], ['WORKER_REFUSED', 'STALE_VOUCHER'], 'out of order behind what is settled');

  await until('the end of all windows', async () => (await pendingBatches(ledger)).length === 0);
  test.equal(
    (await sessionOf(ledger, session))!.settled,
    due(),
    'each answer that was heard is paid once, and no other',
  );
  test.ok(await balanced(ledger), 'to the last unit');
});
