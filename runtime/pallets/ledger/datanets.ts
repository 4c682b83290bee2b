/**
 * Datanets: networks of records for one domain. Contributors commit batches of records (a blob, its Merkle root, a stake);
 * validators attest that they hold them; owners and curators admit them; snapshots are immutable versions that adapters are
 * trained on. The chain stores O(batches): a bad record is shown with a Merkle proof, and costs the batch its stake.
 *
 * Whatever stays in the state or with the nodes has a deposit on hold, which comes back when it goes.
 */
import { addWeight, cost, ensure, ensureSigned, fail, PS_PER_MS, scaleWeight } from '../../framework/dispatch.ts';
import { call, constant, type Env, pallet } from '../../framework/pallet.ts';
import type { ParametersConfig } from '../../framework/parameters.ts';
import { storage } from '../../framework/storage.ts';
import { workQueue } from '../../framework/work-queue.ts';
import type { Host } from '../../host.ts';
import { hashOf, part } from '../../primitives/attribution/canonical.ts';
import { contentHash } from '../../primitives/attribution/findings.ts';
import { batchIndex, blobHash, type DatanetId, datanetId, snapshotVersion } from '../../primitives/attribution/ids.ts';
import { MAX_CONTRIBUTORS, MAX_ROWS, NOVELTY_ONE } from '../../primitives/attribution/limits.ts';
import { type SnapshotRange, snapshotRoot } from '../../primitives/attribution/records.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { stateDeposit } from '../../primitives/deposit.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import { isLabel, isProse } from '../../primitives/plain-text.ts';
import { bool, fixedBytes, option, struct, text, u32, u64, vec } from '../../primitives/scale/codec.ts';
import {
  type AccountId,
  accountId,
  type Balance,
  balance,
  hash,
  PERBILL,
  sameAccount,
} from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';
import * as blobs from './blobs.ts';
import * as commitments from './commitments.ts';
import { admit, arrive, expire, isNamed, remove, takeOut } from './datanets/admission.ts';
import { accusedOf } from './datanets/disputes.ts';
import {
  BATCH_DEPOSIT,
  BATCH_STAKE,
  DATANET_DEPOSIT,
  type DatanetParameters,
  errors,
  events,
  parameters,
  SNAPSHOT_DEPOSIT,
  store,
} from './datanets/store.ts';
import {
  admission,
  type Batch,
  type Datanet,
  datanetTerms,
  MAX_SNAPSHOT_BATCHES,
  recordFault,
  recordFinding,
  type StoredSnapshot,
} from './datanets/types.ts';

export { errors, events, parameters, store } from './datanets/store.ts';
export {
  type Batch,
  batch,
  type Datanet,
  datanet,
  datanetTerms,
  MAX_SNAPSHOT_BATCHES,
  recordFinding,
  type StoredSnapshot,
  storedRanges,
  storedSnapshot,
} from './datanets/types.ts';

/** Batches that one call decides about. */
const MAX_DECIDED = 256;
/** Versions that are looked at for the oldest one when others were dropped. */
const OLDEST_STEPS = 16;
/** Batches that became available which one block takes up. */
const ARRIVALS_A_BLOCK = 64;

/** For a batch's entries in four maps. */
const BATCH_ENTRIES = stateDeposit(4, 400);
const snapshotDeposit = (ranges: number): Balance => stateDeposit(2, 200 + 76 * ranges);

const waitingBatch = part('WaitingBatch', struct({ id: datanetId, batch: batchIndex }));
const leaving = addWeight(cost(60_000_000n, 10, 10), blobs.claimWeight(1));
const waiting = workQueue({
  name: 'Waiting',
  docs: 'Batches that fall out unless validators have attested their records by then.',
  item: waitingBatch,
  budget: 20n * PS_PER_MS,
  weight: () => leaving,
  run(env, { id, batch: index }) {
    expire(env, id, index);
    return undefined;
  },
});

// ---- what other pallets build on -----------------------------------------------------------------------------

export const parametersOf = (host: Host): DatanetParameters => parameters.get(host);
export const datanetOf = (host: Host, id: DatanetId): Datanet | undefined => store.Datanets.get(host, id);
export const snapshotOf = (host: Host, id: DatanetId, version: number): StoredSnapshot | undefined =>
  store.Snapshots.get(host, [id, version]);
/** What a batch says of its file, for those who attest that it is so. */
export const manifestOf = (host: Host, id: DatanetId, index: number): Batch | undefined =>
  store.Batches.get(host, [id, index]);

/** One order more (`1`) or less (`-1`) names the snapshot. Nothing, if there is none. */
export function useSnapshot(host: Host, id: DatanetId, version: number, change: 1 | -1): void {
  store.Snapshots.mutate(host, [id, version], (found) => found && { ...found, users: found.users + change });
}

const known = (host: Host, id: DatanetId): Datanet => store.Datanets.get(host, id) ?? fail(errors.UnknownDatanet);
const knownBatch = (host: Host, id: DatanetId, index: number): Batch =>
  store.Batches.get(host, [id, index]) ?? fail(errors.UnknownBatch);
function owned(host: Host, id: DatanetId, who: AccountId): Datanet {
  const found = known(host, id);
  ensure(sameAccount(found.owner, who), errors.NotOwner);
  return found;
}
function curated(host: Host, id: DatanetId, who: AccountId): Datanet {
  const found = known(host, id);
  ensure(sameAccount(found.owner, who) || store.Curators.has(host, [id, who]), errors.NotCurator);
  return found;
}

/** Out of existence where it is too little for the treasury to come alive on. */
function forfeit(env: Env, from: AccountId, amount: Balance): void {
  balances.takeFromHold(env, BATCH_STAKE, from, amount);
  if (!balances.give(env, TREASURY, amount)) balances.rescind(env, amount);
}

/** What a byte of a record takes that a dispute shows, at the worst: hash, parser, shingles of one-letter words. */
const disputeBytes = cost(300_000n);

// ---- calls ---------------------------------------------------------------------------------------------------

export const calls = {
  create: call({
    index: 0,
    args: {
      name: text(64),
      description: text(1024),
      schema: text(4096),
      licence: text(128),
      admission,
      stake: balance,
      dedupThreshold: u32,
      accessPrice: balance,
    },
    weight: cost(120_000_000n, 4, 4),
    docs: 'Open a Datanet owned by the signer, who puts down a deposit.',
    run({ origin, host, ...env }, { admission: admits, stake, accessPrice, ...words }) {
      const owner = ensureSigned(origin);
      const plain =
        isLabel(words.name) && isLabel(words.licence) && isProse(words.description) && isProse(words.schema);
      ensure(plain, errors.BadTerms);
      ensure(words.dedupThreshold >= NOVELTY_ONE / 2 && words.dedupThreshold <= NOVELTY_ONE, errors.BadTerms);
      const { datanetDeposit: deposit } = parametersOf(host);
      balances.hold({ host, ...env }, DATANET_DEPOSIT, owner, deposit);
      const id = store.NextId.get(host);
      store.NextId.put(host, (id + 1) as DatanetId);
      store.Datanets.insert(host, id, {
        ...words,
        ...{ owner, offeredTo: undefined, terms: hashOf(host, datanetTerms, words) },
        ...{ admission: admits, stake, accessPrice, deposit, curators: 0 },
        ...{ batches: 0, entries: 0, admittedBatches: 0, admitted: 0, contributors: 0 },
        ...{ snapshots: 0, keptSnapshots: 0, oldestSnapshot: 0 },
      });
      env.emit(events.Created, { id, owner });
    },
  }),
  setTerms: call({
    index: 1,
    args: { id: datanetId, stake: balance, accessPrice: balance, admission },
    weight: cost(30_000_000n, 1, 1),
    docs: 'Change who is admitted, what later batches stake and what later orders pay. Who has signed for less is not bound by it. Owner only.',
    run({ origin, host, emit }, { id, stake, accessPrice, admission: admits }) {
      const found = owned(host, id, ensureSigned(origin));
      store.Datanets.insert(host, id, { ...found, stake, accessPrice, admission: admits });
      emit(events.TermsChanged, { id, stake, accessPrice, admission: admits });
    },
  }),
  offerOwnership: call({
    index: 2,
    args: { id: datanetId, to: option(accountId) },
    weight: cost(30_000_000n, 1, 1),
    docs: 'Offer the Datanet to another account, which takes it by `accept_ownership`, or take the offer back. Owner only.',
    run({ origin, host, emit }, { id, to }) {
      const found = owned(host, id, ensureSigned(origin));
      store.Datanets.insert(host, id, { ...found, offeredTo: to });
      emit(events.Offered, { id, to: to ?? found.owner });
    },
  }),
  setCurator: call({
    index: 3,
    args: { id: datanetId, curator: accountId, allowed: bool },
    weight: cost(60_000_000n, 5, 4),
    docs: 'Appoint or dismiss a curator; a deposit is held for each. Owner only.',
    run({ origin, ...env }, { id, curator, allowed }) {
      const { host } = env;
      const found = owned(host, id, ensureSigned(origin));
      const held = store.Curators.get(host, [id, curator]);
      if ((held !== undefined) === allowed) return;
      if (held === undefined) {
        const { curatorDeposit } = parametersOf(host);
        balances.hold(env, DATANET_DEPOSIT, found.owner, curatorDeposit);
        store.Curators.insert(host, [id, curator], curatorDeposit);
        const deposit = found.deposit + curatorDeposit;
        store.Datanets.insert(host, id, { ...found, deposit, curators: found.curators + 1 });
      } else {
        balances.release(env, DATANET_DEPOSIT, found.owner, held);
        store.Curators.remove(host, [id, curator]);
        const deposit = found.deposit - held;
        store.Datanets.insert(host, id, { ...found, deposit, curators: found.curators - 1 });
      }
      env.emit(events.CuratorChanged, { id, curator, allowed });
    },
  }),
  contribute: call({
    index: 4,
    args: {
      id: datanetId,
      terms: hash,
      blob: blobHash,
      bytes: u64,
      records: u32,
      root: hash,
      sketches: hash,
      maxStake: balance,
    },
    // Its falling out is paid for as well.
    weight: addWeight(cost(130_000_000n, 12, 14), addWeight(blobs.claimWeight(1), leaving)),
    docs: 'Commit a batch: a blob of canonical JSONL with its Merkle root, bound to the signer. Held are its stake (at most `max_stake`) and deposits for its bytes and its entry. It is part of the Datanet once validators attest that they hold it.',
    run({ origin, ...env }, { id, terms, maxStake, ...manifest }) {
      const { host } = env;
      const contributor = ensureSigned(origin);
      const found = known(host, id);
      ensure(found.admission.type !== 'Closed', errors.ClosedDatanet);
      ensure(equalBytes(found.terms, terms), errors.OtherTerms);
      const { stake } = found;
      ensure(stake <= maxStake, errors.StakeTooHigh);
      // The shortest record is `{}` with its line feed.
      const { records } = manifest;
      ensure(records > 0 && records <= MAX_ROWS && manifest.bytes >= 3n * BigInt(records), errors.EmptyBatch);
      ensure(!store.Committed.has(host, [id, contributor, manifest.blob]), errors.AlreadyCommitted);
      const index = found.batches;
      const claim = blobs.commit(env, {
        depositor: contributor,
        purpose: { type: 'Records', value: { datanet: id, batch: index } },
        files: [{ hash: manifest.blob, bytes: manifest.bytes }],
      });
      balances.hold(env, BATCH_STAKE, contributor, stake);
      balances.hold(env, BATCH_DEPOSIT, contributor, BATCH_ENTRIES);
      const now = system.blockNumber(host);
      store.Committed.insert(host, [id, contributor, manifest.blob], index);
      store.Batches.insert(host, [id, index], {
        ...manifest,
        ...{ contributor, claim, stake, deposit: BATCH_ENTRIES, at: now, since: 0, status: { type: 'Waiting' } },
      });
      store.Datanets.insert(host, id, { ...found, batches: index + 1, entries: found.entries + 1 });
      waiting.schedule(host, { now, due: now + parametersOf(host).availabilityPeriod }, { id, batch: index });
      env.emit(events.Contributed, { id, batch: index, contributor, blob: manifest.blob, records });
    },
  }),
  curate: call({
    index: 5,
    args: { id: datanetId, batches: vec(batchIndex, MAX_DECIDED), admit: bool },
    weight: ({ batches }) => addWeight(cost(40_000_000n, 2, 1), scaleWeight(leaving, BigInt(batches.length))),
    docs: 'Admit pending batches, or take batches out whatever their status: their deposits go back. Those that cannot be decided of are left as they are. Owner and curators only.',
    run({ origin, ...env }, { id, batches, admit: wanted }) {
      const { host } = env;
      let net = curated(host, id, ensureSigned(origin));
      const before = net;
      for (const index of batches) {
        const found = store.Batches.get(host, [id, index]);
        if (found === undefined || found.status.type === 'Out') continue;
        if (wanted) {
          if (found.status.type === 'Pending') net = admit(env, id, net, index, found) ?? fail(errors.Full);
          continue;
        }
        env.emit(events.Refused, { id, batch: index });
        net = takeOut(env, id, net, index, found, false);
      }
      ensure(net !== before, errors.AlreadyDecided);
      store.Datanets.insert(host, id, net);
    },
  }),
  snapshot: call({
    index: 6,
    args: { id: datanetId, maxBatches: u32 },
    weight: ({ maxBatches }) =>
      addWeight(
        cost(80_000_000n, 4, 5),
        scaleWeight(cost(10_000_000n, 2), BigInt(Math.min(maxBatches, MAX_SNAPSHOT_BATCHES))),
      ),
    docs: 'Fix a version of all admitted batches. `max_batches` bounds the work that is paid for and the deposit for what the version stores. Owner and curators only.',
    run({ origin, ...env }, { id, maxBatches }) {
      const { host } = env;
      const depositor = ensureSigned(origin);
      const found = curated(host, id, depositor);
      ensure(found.admittedBatches <= maxBatches, errors.TooManyBatches);
      ensure(found.admittedBatches > 0, errors.NothingAdmitted);
      const admitted = [...store.Admitted.entries(host, [id])].sort(([[, a]], [[, b]]) => a - b);
      let first = 0;
      const ranges: SnapshotRange[] = [];
      for (const [[, batch], { contributor, records: count, root }] of admitted) {
        ranges.push({ contributor, batch, first, count, root });
        first += count;
      }
      const version = found.snapshots;
      const root = snapshotRoot(host, ranges);
      const deposit = snapshotDeposit(ranges.length);
      balances.hold(env, SNAPSHOT_DEPOSIT, depositor, deposit);
      store.Ranges.insert(host, [id, version], ranges);
      store.Snapshots.insert(host, [id, version], {
        ...{ root, count: first, ranges: ranges.length, at: system.blockNumber(host) },
        ...{ users: 0, depositor, deposit },
      });
      store.Datanets.insert(host, id, {
        ...found,
        snapshots: version + 1,
        keptSnapshots: found.keptSnapshots + 1,
        oldestSnapshot: found.keptSnapshots === 0 ? version : found.oldestSnapshot,
      });
      env.emit(events.SnapshotTaken, { id, version, root, count: first });
    },
  }),
  releaseStake: call({
    index: 7,
    args: { id: datanetId, batch: batchIndex },
    weight: cost(60_000_000n, 5, 4),
    docs: 'Take a batch’s stake back when the time for disputes is over. Its deposits stay for as long as the batch does. Contributor only.',
    run({ origin, ...env }, { id, batch: index }) {
      const { host } = env;
      const found = knownBatch(host, id, index);
      ensure(sameAccount(found.contributor, ensureSigned(origin)), errors.NotContributor);
      ensure(found.stake > 0n && isStakeFree(host, found), errors.StakeLocked);
      balances.release(env, BATCH_STAKE, found.contributor, found.stake);
      store.Batches.insert(host, [id, index], { ...found, stake: 0n });
      env.emit(events.StakeReleased, { id, batch: index, amount: found.stake });
    },
  }),
  disputeRecord: call({
    index: 8,
    args: { id: datanetId, fault: recordFault, salt: option(fixedBytes(32)) },
    weight: ({ fault }) => {
      const { line } = fault.type === 'Malformed' ? fault.value : fault.value.record;
      const earlier = fault.type === 'Malformed' ? 0 : fault.value.earlier.line.length;
      return addWeight(
        addWeight(cost(300_000_000n, 12, 12), leaving),
        scaleWeight(disputeBytes, BigInt(line.length + earlier)),
      );
    },
    docs: 'Show a malformed or doubled record. Its batch is out of later snapshots and its stake lost, part of it to the finder: to the signer if it committed to this, with this salt, by `Commitments.commit` before anybody could read it.',
    run({ origin, ...env }, { id, fault, salt }) {
      const { host } = env;
      const finder = ensureSigned(origin);
      const found = known(host, id);
      const [index, accused] = accusedOf(host, id, found.dedupThreshold, fault);
      const content = contentHash(host, recordFinding, { id, fault });
      const isFirst = salt !== undefined && commitments.redeem(env, { finder, salt, content });
      const part = isFirst ? (accused.stake * BigInt(parametersOf(host).finderReward)) / BigInt(PERBILL) : 0n;
      balances.takeFromHold(env, BATCH_STAKE, accused.contributor, part);
      const reward = balances.give(env, finder, part) ? part : 0n;
      if (reward < part) balances.rescind(env, part);
      forfeit(env, accused.contributor, accused.stake - part);
      env.emit(events.Struck, { id, batch: index, by: finder, slashed: accused.stake });
      store.Datanets.insert(host, id, takeOut(env, id, found, index, { ...accused, stake: 0n }, true));
    },
  }),
  setParameters: parameters.setter(9, events.ParametersChanged, errors.BadParameters),
  acceptOwnership: call({
    index: 10,
    args: { id: datanetId },
    weight: cost(80_000_000n, 5, 5),
    docs: 'Take over a Datanet that was offered to the signer, with the deposits for it and its curators.',
    run({ origin, ...env }, { id }) {
      const owner = ensureSigned(origin);
      const found = known(env.host, id);
      ensure(found.offeredTo !== undefined && sameAccount(found.offeredTo, owner), errors.NotOffered);
      balances.release(env, DATANET_DEPOSIT, found.owner, found.deposit);
      balances.hold(env, DATANET_DEPOSIT, owner, found.deposit);
      store.Datanets.insert(env.host, id, { ...found, owner, offeredTo: undefined });
      env.emit(events.OwnerChanged, { id, owner });
    },
  }),
  withdrawBatch: call({
    index: 11,
    args: { id: datanetId, batch: batchIndex },
    weight: addWeight(cost(40_000_000n, 3, 1), leaving),
    docs: 'Take a batch out of what comes. One that was available must have its stake free first. Contributor only.',
    run({ origin, ...env }, { id, batch: index }) {
      const { host } = env;
      const found = knownBatch(host, id, index);
      ensure(sameAccount(found.contributor, ensureSigned(origin)), errors.NotContributor);
      ensure(found.status.type !== 'Out', errors.AlreadyDecided);
      const isDisputable = found.status.type !== 'Waiting' && found.stake > 0n;
      ensure(!isDisputable || isStakeFree(host, found), errors.StakeLocked);
      env.emit(events.Withdrawn, { id, batch: index });
      store.Datanets.insert(host, id, takeOut(env, id, known(host, id), index, found, false));
    },
  }),
  dropSnapshot: call({
    index: 12,
    args: { id: datanetId, version: snapshotVersion },
    weight: cost(80_000_000n, 5 + OLDEST_STEPS, 5),
    docs: 'Have a version leave the state that no order and no adapter needs; its deposit goes back. Its depositor, the owner and curators only.',
    run({ origin, ...env }, { id, version }) {
      const { host } = env;
      const who = ensureSigned(origin);
      const taken = snapshotOf(host, id, version) ?? fail(errors.UnknownSnapshot);
      const net = sameAccount(taken.depositor, who) ? known(host, id) : curated(host, id, who);
      ensure(taken.users === 0, errors.InUse);
      balances.release(env, SNAPSHOT_DEPOSIT, taken.depositor, taken.deposit);
      store.Snapshots.remove(host, [id, version]);
      store.Ranges.remove(host, [id, version]);
      store.Datanets.insert(host, id, advance(host, id, { ...net, keptSnapshots: net.keptSnapshots - 1 }));
      env.emit(events.SnapshotDropped, { id, version });
    },
  }),
  pruneBatches: call({
    index: 13,
    args: { id: datanetId, batches: vec(batchIndex, MAX_DECIDED) },
    weight: ({ batches }) =>
      addWeight(cost(40_000_000n, 2 + OLDEST_STEPS, 1), scaleWeight(leaving, BigInt(batches.length))),
    docs: 'Have batches leave the state that are out and in no snapshot any more; their deposits go back to their contributors. Anybody.',
    run({ origin, ...env }, { id, batches }) {
      ensureSigned(origin);
      const { host } = env;
      const before = known(host, id);
      let net = advance(host, id, before);
      const { entries } = net;
      for (const index of batches) {
        const found = store.Batches.get(host, [id, index]);
        if (found?.status.type === 'Out' && !isNamed(net, found)) net = remove(env, id, net, index, found);
      }
      ensure(net.entries < entries, errors.StillNamed);
      store.Datanets.insert(host, id, net);
    },
  }),
  close: call({
    index: 14,
    args: { id: datanetId },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Have a Datanet leave the state that has no batches, curators or snapshots; its deposit goes back. Owner only.',
    run({ origin, ...env }, { id }) {
      const found = owned(env.host, id, ensureSigned(origin));
      ensure(found.entries + found.keptSnapshots + found.curators === 0, errors.InUse);
      balances.release(env, DATANET_DEPOSIT, found.owner, found.deposit);
      store.Datanets.remove(env.host, id);
      env.emit(events.Closed, { id });
    },
  }),
};

const isStakeFree = (host: Host, { at }: Batch): boolean =>
  system.blockNumber(host) >= at + parametersOf(host).stakePeriod;

/** The Datanet with its oldest snapshot found again after some were dropped; some steps at a time. */
function advance(host: Host, id: DatanetId, net: Datanet): Datanet {
  let oldest = net.oldestSnapshot;
  if (net.keptSnapshots === 0) return { ...net, oldestSnapshot: net.snapshots };
  for (let step = 0; step < OLDEST_STEPS && oldest < net.snapshots; step++, oldest++) {
    if (store.Snapshots.has(host, [id, oldest])) break;
  }
  return { ...net, oldestSnapshot: oldest };
}

export const datanets = pallet({
  name: 'Datanets',
  index: 20,
  docs: 'Records: who contributed them, in which order, under which terms.',
  storage: storage('Datanets', { ...store, ...waiting.storage }),
  calls,
  events,
  errors,
  constants: {
    MaxSnapshotBatches: constant(u32, MAX_SNAPSHOT_BATCHES, 'Batches that a snapshot may list.'),
    MaxRecords: constant(u32, MAX_ROWS, 'Records that a snapshot may hold.'),
    MaxContributors: constant(u32, MAX_CONTRIBUTORS, 'Contributors that a snapshot may name.'),
    ...parameters.constants,
  },
  holdReasons: {
    DatanetDeposit: DATANET_DEPOSIT,
    BatchStake: BATCH_STAKE,
    BatchDeposit: BATCH_DEPOSIT,
    SnapshotDeposit: SNAPSHOT_DEPOSIT,
  },
  work: [waiting],
  hooks: {
    /** Takes up batches that became available: so many a block, the others wait their turn. */
    onInitialize(env) {
      const arrived = blobs.takeArrivals(env.host, ARRIVALS_A_BLOCK);
      for (const claim of arrived) {
        try {
          env.transactional(() => arrive(env, claim));
        } catch (problem) {
          // It falls out when its time is over, as if it had not come.
          const { type } = env.failureOf(problem);
          env.host.log('error', 'datanets', `the batch of claim ${claim} could not be taken up: ${type}`);
        }
      }
      return addWeight(cost(3_000_000n, 2, 1), scaleWeight(cost(60_000_000n, 8, 7), BigInt(arrived.length)));
    },
  },
  genesis({ host }, config: ParametersConfig<DatanetParameters>) {
    parameters.begin(host, config);
  },
});
