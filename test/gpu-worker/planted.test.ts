/** A worker plants a fault, an auditor says without looking that nothing is wrong, and pays for it: on a whole ledger. */
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { idOfKey } from '../../rpc/client/connection.ts';
import { awaitAdapter } from '../../rpc/client/models.ts';
import * as audits from '../../runtime/pallets/ledger/audits.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { asAccountId, sameAccount } from '../../runtime/primitives/types.ts';
import { attachWorker, hashing, OPEN } from '../main-job/support.ts';
import { until } from '../support/until.ts';
import { balanced, order, world } from './ledger-world.ts';

t.test('an auditor that does not look', { timeout: 240_000 }, async (test) => {
  const chain = await world(test);
  const { ledger, node, pair } = chain;
  const [worker, lazy, payer] = [pair('//Bob'), pair('//Eve//stash'), pair('//Ferdie//stash')];
  await attachWorker(test, { node: node.rpc.ws, pair: worker, planting: { payer, everyMs: 1_000 } });
  const id = await order(chain, 'things', { k: 16 });
  test.equal(await awaitAdapter(ledger, id), 0);
  const capabilities = {
    training: false,
    serving: false,
    auditing: true,
    engine: 'none',
    memoryMiB: 1,
    baseModels: [0],
  };
  await ledger.submit(lazy, ledger.tx('compute', 'register', 2_000n * OPEN, capabilities));
  const parameters = {
    ...{ rate: 1_000_000_000, auditors: 1, commitBlocks: 12, revealBlocks: 40 },
    ...{ fee: OPEN / 10n, silenceSlash: 10n * OPEN, lazySlash: 100n * OPEN },
  };
  const set = ledger.tx('audits', 'setParameters', parameters);
  await ledger.submit(pair('//Alice'), ledger.tx('sudo', 'sudo', set));

  const account = asAccountId(new Uint8Array(lazy.publicKey));
  const drawn = () => ledger.entries('audits', 'audits', audits.audit);
  const mine = async () =>
    (await drawn()).find(({ value }) => value.auditors.some((each) => sameAccount(each.account, account)));
  const found = await until('an audit', mine);
  const audit = idOfKey(found.key);
  test.equal(found.value.subject.type, 'Batch');
  test.equal(found.value.planted, false, 'nothing tells it from another one');
  const salt = new Uint8Array(randomBytes(32));
  const verdict = { audit, auditor: account, faulty: false, salt };
  await ledger.submit(lazy, ledger.tx('audits', 'commit', audit, toHex(hashOf(hashing, audits.auditVerdict, verdict))));
  const current = async () => (await drawn()).find(({ key }) => idOfKey(key) === audit)?.value;
  await until('the worker’s word', async () => ((await current())?.planted === true ? true : undefined));
  await ledger.submit(lazy, ledger.tx('audits', 'reveal', audit, false, toHex(salt)));
  const workerOf = async (address: string) => (await ledger.read('compute', 'workers', compute.worker, address))!;
  await until('its price', async () => ((await workerOf(lazy.address)).slashed > 0n ? true : undefined));
  test.equal((await workerOf(lazy.address)).slashed, 100n * OPEN);
  test.equal((await workerOf(worker.address)).slashed, 0n, 'whoever planted it has done nothing wrong');
  test.ok(await balanced(ledger), 'to the last unit');
});
