/** Connections that drop, a node that restarts, workers that share the load, a lease that nobody works off. */
import t from 'tap';
import { awaitAdapter } from '../../rpc/client/models.ts';
import { allocate, topUp } from '../../rpc/client/sessions.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import type { BaseModelId } from '../../runtime/primitives/attribution/ids.ts';
import { attachWorker, listener, OPEN, openGateway, startLedger, temporaryDirectory } from '../main-job/support.ts';
import { openFor } from '../support/sessions.ts';
import { until } from '../support/until.ts';
import { JSON_TYPE } from './asking.ts';
import { balanced, order, setLeases, world } from './ledger-world.ts';
import { startLine } from './line.ts';

t.test('workers go on', { timeout: 115_000 }, async (test) => {
  const basePath = await temporaryDirectory(test);
  const chain = await world(test, { basePath });
  const { pair, node } = chain;
  const url = node.rpc.ws;
  const line = await startLine(url);
  test.teardown(() => line.close());
  const heard = listener('//Bob');
  const bob = { node: line.url, key: pair('//Bob'), directory: await temporaryDirectory(test), log: heard.log };
  const first = await attachWorker(test, bob);
  const id = await order(chain, 'things');
  test.equal(await awaitAdapter(chain.ledger, id), 0);
  const payer = pair('//Eve');
  const key = payer.derive('//session');
  const session = await openFor(chain.ledger, payer, key.publicKey, bob.key, 20n * OPEN);
  const gateway = await openGateway(test, { node: url, key, session });
  /** The worker that answered, or the code of the failure. */
  const ask = async (prompt = 'The stoat lives'): Promise<string> => {
    const asked = { model: 'things', prompt, max_tokens: 12, temperature: 0 };
    const response = await fetch(`${gateway.url}/completions`, {
      method: 'POST',
      headers: JSON_TYPE,
      body: JSON.stringify(asked),
    });
    const answer = (await response.json()) as { attribution?: { worker: string }; error?: { code: string } };
    return answer.attribution?.worker ?? `${response.status} ${answer.error?.code}`;
  };
  const served = (what: string) => until(what, async () => ((await ask()) === bob.key.address ? true : undefined));
  await served('an answer');

  line.cut();
  await until('the loss', async () => heard.lines.find((each) => /lost the node/.test(each)));
  await served('an answer over a new connection');

  const { port } = new URL(url);
  await chain.stop();
  test.match(await ask(), /^503 /, 'the gateway says so');
  const again = await startLedger(test, { basePath, port: Number(port) });
  const { ledger } = again;
  await served('an answer after the node’s restart');

  const other = pair('//Ferdie');
  const second = await attachWorker(test, { node: url, key: other });
  await until('its registration', () => ledger.read(compute.store.Workers, other.account));
  await topUp(ledger, payer, session, 11n * OPEN);
  await allocate(ledger, payer, session, other.account, 10n * OPEN);
  const workers = await until('answers of both', async () => {
    const answered = await Promise.all(Array.from({ length: 6 }, (_, i) => ask(`Stone number ${i}`)));
    return new Set(answered).size === 2 ? answered : undefined;
  });
  test.same([...new Set(workers)].sort(), [bob.key.address, other.address].sort(), 'they share the load');
  await first.stop();
  await second.stop();

  // A worker that takes a lease and is never heard of again.
  await setLeases({ ...chain, ...again }, 6);
  const dead = pair('//Dave//stash');
  const capabilities = {
    training: true,
    serving: false,
    auditing: false,
    engine: 'none',
    memoryMiB: 1,
    baseModels: [0 as BaseModelId],
  };
  await ledger.submit(dead, compute.calls.register, { bond: 2_000n * OPEN, capabilities });
  const next = await order({ ...chain, ...again }, 'more', { seed: 2n });
  await until('the draw of its seeds', () => ledger.read(compute.store.Tasks, next));
  await until('its seeds', () => ledger.read(compute.store.Tasks, next));
  await ledger.submit(dead, compute.calls.takeLease, { order: next });
  // The next one has time, however busy the machine is.
  await setLeases({ ...chain, ...again }, 2_000);
  await attachWorker(test, { ...bob, node: url });
  test.equal(await awaitAdapter(ledger, next), 1);
  test.equal(await ledger.read(compute.store.Tasks, next), undefined, 'the task is history');
  const lost = await ledger.read(compute.store.Workers, dead.account);
  test.equal(lost!.slashed, OPEN, 'who lets a lease run out pays');
  test.ok(await balanced(ledger), 'to the last unit');
});
