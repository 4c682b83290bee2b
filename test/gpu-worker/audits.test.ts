/** Workers check workers on a whole ledger: honest work passes, a worker whose engine lies is caught and pays. */
import t from 'tap';
import { embeddedEngine } from '../../gpu-worker/engines/embedded/engine.ts';
import type { LoadedModel } from '../../gpu-worker/engines/engine.ts';
import { SHIPPED_MODEL } from '../../gpu-worker/start.ts';
import { runWorker } from '../../gpu-worker/worker.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { callOf } from '../../rpc/client/call.ts';
import { awaitAdapter, layersOf, orderProgress } from '../../rpc/client/models.ts';
import { pendingBatches } from '../../rpc/client/rewards.ts';
import { sessionOf } from '../../rpc/client/sessions.ts';
import type { LocalSigner } from '../../rpc/client/signer.ts';
import * as audits from '../../runtime/pallets/ledger/audits.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import type { BaseModelId } from '../../runtime/primitives/attribution/ids.ts';
import { hashing, listener, OPEN, openGateway, temporaryDirectory } from '../main-job/support.ts';
import { openFor } from '../support/sessions.ts';
import { until } from '../support/until.ts';
import { JSON_TYPE } from './asking.ts';
import { asRoot, balanced, order, world } from './ledger-world.ts';
import { forwarding } from './order.ts';

t.test('three auditors, and a worker that begins to lie', { timeout: 240_000 }, async (test) => {
  const chain = await world(test);
  const { ledger, node, pair } = chain;
  const parameters = {
    ...{ rate: 1_000_000_000, auditors: 3, commitBlocks: 24, revealBlocks: 8 },
    ...{ fee: OPEN / 10n, silenceSlash: 10n * OPEN, lazySlash: 100n * OPEN },
  };
  await asRoot(chain, callOf(audits.calls.setParameters, { parameters }));

  const engine = await embeddedEngine();
  const model = await engine.load(SHIPPED_MODEL);
  const signatures = await createSignatures();
  const stop = new AbortController();
  const heard: string[] = [];
  const running: Promise<void>[] = [];
  const attach = async (uri: string, by: LoadedModel, works: boolean): Promise<LocalSigner> => {
    const who = pair(uri);
    const { log } = listener(uri);
    const options = {
      ...{ node: node.rpc.ws, key: who, directory: await temporaryDirectory(test), model: by },
      ...{ modelDirectory: SHIPPED_MODEL, licence: 'Apache-2.0', engine: 'embedded', exact: true, bond: 2_000n * OPEN },
      ...{ training: works, serving: works, auditing: !works, maxAdapters: 8, settleMs: 1_000, checkpointSteps: 50 },
      ...{ hashing, signatures },
    };
    running.push(
      runWorker(
        {
          ...options,
          log: (level, message) => {
            heard.push(`${uri} ${message}`);
            log(level, message);
          },
        },
        stop.signal,
      ),
    );
    await until(`${uri} at work`, async () => heard.find((each) => each.startsWith(`${uri} attached`)));
    return who;
  };
  test.teardown(async () => {
    stop.abort();
    await Promise.all(running);
    await engine.close();
  });

  /** From now on the features are those of other gradients: cheaper, and wrong. */
  let lying = false;
  const wavering: LoadedModel = {
    ...forwarding(model),
    async *gradients(examples, adapter, options) {
      for await (const each of model.gradients(examples, adapter, options)) {
        yield lying ? { ...each, gradient: each.gradient.map((value, at) => (at % 2 === 0 ? value : -value)) } : each;
      }
    },
  };
  const worker = await attach('//Bob', wavering, true);
  for (const uri of ['//Ferdie', '//Eve//stash', '//Dave//stash']) await attach(uri, model, false);
  const workerOf = async ({ account }: LocalSigner) => (await ledger.read(compute.store.Workers, account))!;

  const id = await order(chain, 'things', { attributionLayers: 2, attributionStride: 3 });
  test.equal(await layersOf(ledger, 0 as BaseModelId), model.info.layers, 'by the published configuration');
  test.equal(await awaitAdapter(ledger, id), 0, 'an honest training passes its audit');
  /** Two of three decide: on a busy machine one may come too late. */
  const found = (what: string) => heard.filter((each) => each.endsWith(what)).length >= 2;
  test.ok(found('audit 0: nothing wrong'), 'made again by others');

  const payer = pair('//Charlie//stash');
  const key = payer.derive('//session');
  const session = await openFor(ledger, payer, key.publicKey, worker, 5n * OPEN);
  const gateway = await openGateway(test, { node: node.rpc.ws, key, session });
  const ask = async (prompt: string): Promise<bigint> => {
    const asked = { model: 'things', prompt, max_tokens: 12, temperature: 0 };
    const response = await fetch(`${gateway.url}/completions`, {
      method: 'POST',
      headers: JSON_TYPE,
      body: JSON.stringify(asked),
    });
    const answer = (await response.json()) as { attribution?: { fee: string } };
    return BigInt(answer.attribution?.fee ?? 0);
  };
  const honest = await until('an answer', async () => (await ask('The wren lives')) || undefined);
  const over = async () => ((await pendingBatches(ledger)).length === 0 ? true : undefined);
  await until('settlement', async () => ((await sessionOf(ledger, session))!.settled === honest ? true : undefined));
  await until('the end of its window', over);
  test.ok(found('audit 1: nothing wrong'), 'an honest answer passes');
  test.equal((await workerOf(worker)).slashed, 0n);
  test.equal((await sessionOf(ledger, session))!.settled, honest);

  lying = true;
  const lied = await ask('The newt lives');
  test.ok(lied > 0n, 'every integer of the receipt is right');
  await until('the verdict', async () => ((await workerOf(worker)).slashed > 0n ? true : undefined));
  test.ok(found('audit 2: COSINE'), 'but not its feature');
  test.equal((await workerOf(worker)).slashed, 500n * OPEN + lied, 'which costs the worker');
  const { settled, deposit } = (await sessionOf(ledger, session))!;
  test.equal(settled, honest, 'the payer has the fees back');
  test.equal(settled + deposit, 5n * OPEN);
  test.equal((await orderProgress(ledger, id)).type, 'live');
  test.ok(await balanced(ledger), 'to the last unit');
});
