/** Workers that are killed at any point go on where they were: no lease is worked off twice, no answer is lost. */
import t from 'tap';
import { awaitAdapter, orderProgress } from '../../rpc/client/models.ts';
import { pendingBatches } from '../../rpc/client/rewards.ts';
import { sessionOf } from '../../rpc/client/sessions.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import type { AdapterId, OrderId } from '../../runtime/primitives/attribution/ids.ts';
import { attachWorker, OPEN, openGateway, temporaryDirectory } from '../main-job/support.ts';
import { openFor } from '../support/sessions.ts';
import { until } from '../support/until.ts';
import { JSON_TYPE } from './asking.ts';
import { balanced, order, setLeases, world } from './ledger-world.ts';
import { spawnWorker, startLine } from './line.ts';

t.test('killed in training, before its files are up, before it settles', { timeout: 115_000 }, async (test) => {
  const chain = await world(test);
  const { ledger, node, pair } = chain;
  const line = await startLine(node.rpc.ws);
  test.teardown(() => line.close());
  const settings = {
    ...{ node: line.url, uri: '//Bob', directory: await temporaryDirectory(test) },
    ...{ settleMs: 3_600_000, checkpointSteps: 5 },
  };
  // On a busy machine a worker may take its time to come back.
  await setLeases(chain, 2_000);
  const task = () => ledger.read(compute.store.Tasks, 0 as OrderId);

  // 1. In the middle of training.
  const first = spawnWorker(test, settings);
  await first.says(/attached/);
  const id = await order(chain, 'things', { steps: 60 });
  await new Promise<void>((resolve, reject) => {
    ledger.rpc
      .subscribe('training_watch', 'training_unwatch', [id], (report) => {
        // The state after step 12 is down before step 13 begins.
        if (((report as { step?: number }).step ?? 0) >= 14) resolve();
      })
      .catch(reject);
  });
  await first.kill();
  const leased = (await task())!;
  test.equal(leased.status.type, 'Leased');

  // 2. The receipt is on the chain, no file is up.
  const second = spawnWorker(test, settings);
  const [, step] = await second.says(/training under lease 0, from step (\d+)/);
  test.ok(Number(step) >= 10, `goes on from step ${step}`);
  const upload = line.hold('PUT');
  await upload;
  await second.kill();
  test.equal((await task())!.status.type, 'Submitted');
  const { payload } = (await ledger.read(models.store.Receipts, 0 as AdapterId))!;
  test.equal(payload.loss.steps, 60);
  const { adapter, adapterConfig, basis, features } = payload;
  const files = [
    ...[adapter, adapterConfig, basis.checkpoint, basis.eigenbases, basis.projection],
    ...[features.featureFile, features.sumFile, features.frequencyFile],
  ];
  const there = async () => (await Promise.all(files.map((each) => ledger.blobs.has(each)))).filter(Boolean).length;
  test.equal(await there(), 0, 'none of the files');

  // 3. With a receipt that is not settled.
  const third = spawnWorker(test, settings);
  await third.says(/serving adapter 0/);
  test.equal(await there(), files.length, 'all of them, from the journal');
  test.equal(await awaitAdapter(ledger, id), 0);
  test.equal(await task(), undefined, 'done: the task is history');
  const { lease } = (await ledger.read(models.store.Receipts, 0 as AdapterId))!.payload;
  test.equal(lease, 0n, 'one lease, worked off once');
  const payer = pair('//Eve');
  const key = payer.derive('//session');
  const session = await openFor(ledger, payer, key.publicKey, pair('//Bob'), 5n * OPEN);
  const gateway = await openGateway(test, { node: node.rpc.ws, key, session });
  const ask = async () => {
    const response = await fetch(`${gateway.url}/completions`, {
      method: 'POST',
      headers: JSON_TYPE,
      body: JSON.stringify({ model: 'things', prompt: 'The heron lives', max_tokens: 12, temperature: 0 }),
    });
    const answer = (await response.json()) as { attribution?: { fee: string }; error?: { code: string } };
    return { status: response.status, fee: BigInt(answer.attribution?.fee ?? 0), code: answer.error?.code };
  };
  const paid = [await ask(), await ask()];
  test.same(
    paid.map(({ status }) => status),
    [200, 200],
  );
  await third.kill();
  await until('the worker’s end', async () => {
    const { data } = (await (await fetch(`${gateway.url}/models`)).json()) as { data: readonly unknown[] };
    return data.length === 0 ? 'gone' : undefined;
  });
  test.same(await ask(), { status: 404, fee: 0n, code: 'model_not_found' });
  test.equal((await sessionOf(ledger, session))!.settled, 0n, 'nothing is settled yet');

  const fourth = await attachWorker(test, {
    node: node.rpc.ws,
    key: pair('//Bob'),
    directory: settings.directory,
    settleMs: 1_000,
  });
  const fees = paid.reduce((sum, { fee }) => sum + fee, 0n);
  await until('settlement', async () => ((await sessionOf(ledger, session))!.settled === fees ? true : undefined));
  await until('the adapter’s return', async () => ((await ask()).status === 200 ? true : undefined));
  await until('the end of all windows', async () => ((await pendingBatches(ledger)).length === 0 ? true : undefined));
  await fourth.stop();
  test.equal((await orderProgress(ledger, id)).type, 'live');
  test.ok(await balanced(ledger), 'to the last unit');
});
