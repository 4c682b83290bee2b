/** A worker plants a fault, an auditor says without looking that nothing is wrong, and pays for it: on a whole ledger. */
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { callOf } from '../../rpc/client/call.ts';
import { awaitAdapter } from '../../rpc/client/models.ts';
import * as audits from '../../runtime/pallets/ledger/audits.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { BaseModelId } from '../../runtime/primitives/attribution/ids.ts';
import { type AccountId, sameAccount } from '../../runtime/primitives/types.ts';
import { attachWorker, hashing, OPEN } from '../main-job/support.ts';
import { until } from '../support/until.ts';
import { asRoot, balanced, order, world } from './ledger-world.ts';

t.test('an auditor that does not look', { timeout: 240_000 }, async (test) => {
  const chain = await world(test);
  const { ledger, node, pair } = chain;
  const [worker, lazy, payer] = [pair('//Bob'), pair('//Eve//stash'), pair('//Ferdie//stash')];
  await attachWorker(test, { node: node.rpc.ws, key: worker, planting: { payer, everyMs: 1_000 } });
  const id = await order(chain, 'things', { k: 16 });
  test.equal(await awaitAdapter(ledger, id), 0);
  const capabilities = {
    training: false,
    serving: false,
    auditing: true,
    engine: 'none',
    memoryMiB: 1,
    baseModels: [0 as BaseModelId],
  };
  await ledger.submit(lazy, compute.calls.register, { bond: 2_000n * OPEN, capabilities });
  const parameters = {
    ...{ rate: 1_000_000_000, auditors: 1, commitBlocks: 12, revealBlocks: 40 },
    ...{ fee: OPEN / 10n, silenceSlash: 10n * OPEN, lazySlash: 100n * OPEN },
  };
  await asRoot(chain, callOf(audits.calls.setParameters, { parameters }));

  const { account } = lazy;
  const drawn = () => Array.fromAsync(ledger.entries(audits.store.Audits));
  const mine = async () =>
    (await drawn()).find(([, { auditors }]) => auditors.some((each) => sameAccount(each.account, account)));
  const [audit, found] = await until('an audit', mine);
  test.equal(found.subject.type, 'Batch');
  test.equal(found.planted, false, 'nothing tells it from another one');
  const salt = new Uint8Array(randomBytes(32));
  const verdict = { audit, auditor: account, faulty: false, salt };
  const commitment = hashOf(hashing, audits.auditVerdict, verdict);
  await ledger.submit(lazy, audits.calls.commit, { audit, commitment });
  const current = () => ledger.read(audits.store.Audits, audit);
  await until('the worker’s word', async () => ((await current())?.planted === true ? true : undefined));
  await ledger.submit(lazy, audits.calls.reveal, { audit, faulty: false, salt });
  const workerOf = async (who: AccountId) => (await ledger.read(compute.store.Workers, who))!;
  await until('its price', async () => ((await workerOf(account)).slashed > 0n ? true : undefined));
  test.equal((await workerOf(account)).slashed, 100n * OPEN);
  test.equal((await workerOf(worker.account)).slashed, 0n, 'whoever planted it has done nothing wrong');
  test.ok(await balanced(ledger), 'to the last unit');
});
