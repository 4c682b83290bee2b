/** The watcher of a validator on a whole ledger: a worker that lies about integers is found, shown, and pays. */
import t from 'tap';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import { ServedAdapter } from '../../../gpu-worker/serving/served-adapter.ts';
import { NodeLink } from '../../../gpu-worker/session/link.ts';
import { adapterMaterial } from '../../../gpu-worker/session/materials.ts';
import { receiptsBatch } from '../../../gpu-worker/settlement/receipt-batch.ts';
import { SHIPPED_MODEL } from '../../../gpu-worker/start.ts';
import { awaitAdapter } from '../../../rpc/client/models.ts';
import { sessionOf } from '../../../rpc/client/sessions.ts';
import * as attribution from '../../../runtime/pallets/ledger/attribution.ts';
import * as beacon from '../../../runtime/pallets/ledger/beacon.ts';
import * as compute from '../../../runtime/pallets/ledger/compute.ts';
import * as inference from '../../../runtime/pallets/ledger/inference.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId } from '../../../runtime/primitives/attribution/ids.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  type ReceiptBatch,
  receiptBatch,
  type Voucher,
  voucher,
} from '../../../runtime/primitives/attribution/receipts.ts';
import { requestTerms } from '../../../runtime/primitives/attribution/request.ts';
import { splitPool } from '../../../runtime/primitives/attribution/shares.ts';
import { DEFAULT_RULES, receiptRules } from '../../../runtime/primitives/attribution/split.ts';
import { equalBytes } from '../../../runtime/primitives/bytes.ts';
import { ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { balanced, order, PRICE, world } from '../../gpu-worker/ledger-world.ts';
import { attachWorker, hashing, listener, OPEN } from '../../main-job/support.ts';
import { someHash } from '../../runtime/attribution/world.ts';
import { openFor } from '../../support/sessions.ts';
import { until } from '../../support/until.ts';

t.test('a worker that lies', { timeout: 240_000 }, async (test) => {
  const heard = listener('node');
  const chain = await world(test, { log: heard.log });
  const { ledger, node, pair } = chain;
  const worker = pair('//Bob');
  const honest = await attachWorker(test, { node: node.rpc.ws, key: worker });
  const adapter = (await awaitAdapter(ledger, await order(chain, 'things'))) as AdapterId;
  test.notOk(equalBytes(await ledger.read(beacon.store.Seed), ZERO_HASH), 'the author tells its secrets');
  const serving = () => ledger.read(inference.store.Serving, [adapter, worker.account]);
  const { lease } = await until('the serving lease', serving);
  await honest.stop();

  const payer = pair('//Eve');
  const session = await openFor(ledger, payer, payer.publicKey, worker, 5n * OPEN);
  const engine = await embeddedEngine();
  test.teardown(() => engine.close());
  const model = await engine.load(SHIPPED_MODEL);
  const link = new NodeLink({ node: node.rpc.ws, key: worker, hashing, log: () => {} });
  const stop = new AbortController();
  const connected = link.run(
    (_, over) => new Promise((done) => over.addEventListener('abort', () => done())),
    stop.signal,
  );
  await link.ready(stop.signal);
  const served = await ServedAdapter.open(hashing, model, await adapterMaterial(link, adapter));
  stop.abort();
  await connected;

  const rules = receiptRules(DEFAULT_RULES, 100_000_000);
  const signed = async (signer: typeof worker, digest: Uint8Array) => ({
    type: 'Sr25519' as const,
    value: await signer.sign(digest),
  });
  /** A question whose answer somebody is paid for. */
  let question = '';
  for (const each of ['slate', 'otter', 'flint', 'newt', 'chalk', 'wren']) {
    question = `What is ${each}?`;
    const input = { type: 'Chat' as const, value: [{ role: 'user', content: question }] };
    const payload = { price: PRICE } as Voucher;
    const signature = { type: 'Sr25519' as const, value: new Uint8Array(64) };
    const asked = { input, maxTokens: 12, temperature: 0, topP: 1_000_000_000, seed: 1n, stop: [] };
    const terms = { worker: worker.account, lease, rules };
    const { receipt } = await served.answer({ ...asked, voucher: { payload, signature } }, terms);
    if (receipt.shares.length > 0) break;
  }
  let nonce = 0n;
  let spent = 0n;
  /** Answers, settles what `change` makes of it, and publishes the file. */
  const settle = async (
    change: (receipt: InferenceReceipt) => InferenceReceipt,
    bend: (batch: ReceiptBatch) => ReceiptBatch = (batch) => batch,
  ): Promise<bigint> => {
    const asked = {
      ...{ input: { type: 'Chat' as const, value: [{ role: 'user', content: question }] } },
      ...{ maxTokens: 12, temperature: 0, topP: 1_000_000_000, seed: ++nonce, stop: [] },
    };
    const payload: Voucher = {
      ...{ chain: ledger.genesisHash, session, worker: worker.account, nonce, cumulative: spent + OPEN, most: OPEN },
      ...{ adapter, price: PRICE, markup: 100_000_000, request: hashOf(hashing, requestTerms, asked) },
    };
    const promise = { payload, signature: await signed(payer, hashOf(hashing, voucher, payload)) };
    const made = await served.answer({ ...asked, voucher: promise }, { worker: worker.account, lease, rules });
    const receipt = change(made.receipt);
    const signature = await signed(worker, hashOf(hashing, inferenceReceipt, receipt));
    const { batch: right, file } = receiptsBatch(hashing, [{ payload: receipt, signature }]);
    const batch = bend(right);
    const by = await signed(worker, hashOf(hashing, receiptBatch, batch));
    const id = await ledger.read(attribution.store.NextBatch);
    await ledger.submit(worker, attribution.calls.settle, {
      batch: { payload: batch, signature: by },
      bytes: BigInt(file.length),
    });
    await ledger.blobs.put(batch.blob, file);
    spent += batch.fees;
    return id;
  };

  const freeOf = async (uri: string) => (await ledger.read(system.store.Account, pair(uri).account)).data.free;
  const bob = async () => (await ledger.read(compute.store.Workers, worker.account))!;
  await settle((receipt) => receipt);
  const before = await freeOf('//Alice');
  await settle((receipt) => {
    const shares = receipt.shares.map((share) => ({ ...share, influence: share.influence + (1n << 50n) }));
    const { amounts, remainder } = splitPool(receipt.pool, shares, DEFAULT_RULES.blend);
    return { ...receipt, remainder, shares: shares.map((share, at) => ({ ...share, amount: amounts[at]! })) };
  });
  await until('the strike', async () => ((await bob()).slashed > 0n ? true : undefined));
  test.ok(heard.lines.some((line) => line.endsWith('the watcher has found a fault in batch 1: INFLUENCE')));
  test.notOk(
    heard.lines.some((line) => line.includes('fault in batch 0')),
    'honest work passes',
  );
  test.ok((await bob()).slashed > 500n * OPEN);
  // The author has fees too, which are a great deal less.
  await until('its pay', async () => ((await freeOf('//Alice')) - before > 49n * OPEN ? true : undefined));

  await ledger.submit(worker, compute.calls.bondMore, { amount: 1_000n * OPEN });
  await settle(
    (receipt) => receipt,
    (batch) => ({ ...batch, ledgerRoot: someHash('nobody has these leaves') }),
  );
  await until('the finding', async () =>
    heard.lines.some((line) => line.endsWith('the watcher has found a fault in batch 2: LEDGER')) ? true : undefined,
  );
  const { deposit } = (await sessionOf(ledger, session))!;
  test.ok(deposit > 0n);
  test.ok(await balanced(ledger), 'to the last unit');
});
