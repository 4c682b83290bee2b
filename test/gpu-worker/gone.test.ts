/** A worker that is gone for good, with a receipt that nobody heard of: another one answers, and it alone is paid. */
import t from 'tap';
import { runningWorkers } from '../../gpu-worker/operator/running-workers.ts';
import { awaitAdapter } from '../../rpc/client/models.ts';
import { pendingBatches } from '../../rpc/client/rewards.ts';
import { servedAdapters } from '../../rpc/client/served-adapters.ts';
import { allocate, sessionOf, topUp } from '../../rpc/client/sessions.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import { type AccountId, sameAccount } from '../../runtime/primitives/types.ts';
import { attachWorker, OPEN, openGateway, temporaryDirectory } from '../main-job/support.ts';
import { openFor } from '../support/sessions.ts';
import { until } from '../support/until.ts';
import { type Answer, ask, bodyOf } from './asking.ts';
import { balanced, order, setLeases, world } from './ledger-world.ts';
import { spawnWorker, startLine } from './line.ts';

t.test('a worker is gone for good', { timeout: 220_000 }, async (test) => {
  const chain = await world(test);
  const { ledger, node, pair } = chain;
  const url = node.rpc.ws;
  // Nothing of the kind shall end in between, however busy the machine is.
  await setLeases(chain, 2_000);
  const line = await startLine(url);
  test.teardown(() => line.close());
  const [bob, ferdie] = [pair('//Bob'), pair('//Ferdie')];
  const directory = await temporaryDirectory(test);
  const settings = { uri: '//Bob', directory, settleMs: 1_000, checkpointSteps: 50 };
  const first = spawnWorker(test, { ...settings, node: line.url });
  const adapter = (await awaitAdapter(ledger, await order(chain, 'things'))) as AdapterId;
  const payer = pair('//Eve');
  const key = payer.derive('//session');
  const session = await openFor(ledger, payer, key.publicKey, bob, 25n * OPEN);
  const gateway = await openGateway(test, { node: url, key, session, patienceMs: 150_000 });
  await until('the adapter', async () => (await ledger.rpc.call<unknown[]>('inference_models')).length > 0);
  const heard: Answer[] = [await ask(gateway.url, bodyOf('The mole lives'))];
  const settled = async (): Promise<bigint> => (await sessionOf(ledger, session))!.settled;
  const due = (): bigint => heard.reduce((sum, { attribution }) => sum + BigInt(attribution!.fee), 0n);
  await until('settlement', async () => (await settled()) === due());

  line.mute();
  const orphan = ask(gateway.url, bodyOf('The slate lies'));
  await until('a receipt that nobody hears of', async () => (await runningWorkers(directory)).at(0)?.answers === 2);
  await first.kill();
  await attachWorker(test, { node: url, key: ferdie, settleMs: 1_000 });
  const serving = (who: AccountId) => ledger.read(inference.store.Serving, [adapter, who]);
  await until('another worker', () => serving(ferdie.account));
  const offered = async () => (await servedAdapters(ledger)).some(({ worker }) => sameAccount(worker, ferdie.account));
  await until('another worker at the node', async () => (await offered()) || undefined);
  await topUp(ledger, payer, session, 26n * OPEN);
  await allocate(ledger, payer, session, ferdie.account, 25n * OPEN);
  await ledger.submit(bob, inference.calls.stopServing, { adapter });
  const answered = await orphan;
  heard.push(answered);
  test.equal(answered.status, 200, answered.code ?? 'answered');
  test.equal(
    answered.attribution?.worker,
    ferdie.address,
    'the lease of the first is over: it cannot be paid any more',
  );

  // It comes back, takes another lease, and has that receipt in its journal.
  const revenant = spawnWorker(test, { ...settings, node: url });
  await revenant.says(/serving adapter 0/);
  await until('its settlement', async () => (await settled()) === due());
  await until('the end of all windows', async () => (await pendingBatches(ledger)).length === 0);
  test.equal(await settled(), due(), 'each answer that was heard is paid once, and no other');
  test.ok(await balanced(ledger), 'to the last unit');
});
