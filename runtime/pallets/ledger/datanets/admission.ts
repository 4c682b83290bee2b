/**
 * The life of a batch: it waits for validators that hold it, is admitted into later snapshots or not, and leaves the state
 * with its deposits once no snapshot names it. Bounds count what is admitted now, so nobody can use them up for good: what
 * finds no room stays pending, and the owner decides who makes room.
 */
import type { Env } from '../../../framework/pallet.ts';
import type { ClaimId, DatanetId } from '../../../primitives/attribution/ids.ts';
import { MAX_CONTRIBUTORS, MAX_ROWS } from '../../../primitives/attribution/limits.ts';
import * as balances from '../../standard/balances.ts';
import * as blobs from '../blobs.ts';
import { BATCH_DEPOSIT, BATCH_STAKE, events, store } from './store.ts';
import { type Batch, type Datanet, MAX_SNAPSHOT_BATCHES } from './types.ts';

/** The Datanet with one more batch in its next snapshot; undefined if it has no room for it. Nothing is written of the Datanet. */
export function admit({ host, emit }: Env, id: DatanetId, net: Datanet, index: number, of: Batch): Datanet | undefined {
  const { contributor, records, root } = of;
  const before = store.Contributors.get(host, [id, contributor]) ?? 0;
  const next: Datanet = {
    ...net,
    admittedBatches: net.admittedBatches + 1,
    admitted: net.admitted + records,
    contributors: net.contributors + (before === 0 ? 1 : 0),
  };
  const fits =
    next.admittedBatches <= MAX_SNAPSHOT_BATCHES && next.admitted <= MAX_ROWS && next.contributors <= MAX_CONTRIBUTORS;
  if (!fits) return undefined;
  store.Contributors.insert(host, [id, contributor], before + 1);
  store.Admitted.insert(host, [id, index], { contributor, records, root });
  store.Batches.insert(host, [id, index], { ...of, status: { type: 'Admitted' }, since: net.snapshots });
  emit(events.Admitted, { id, batch: index });
  return next;
}

/** Takes a batch out of what comes, whatever its status. Returns the Datanet without it. */
export function takeOut(env: Env, id: DatanetId, net: Datanet, index: number, of: Batch, struck: boolean): Datanet {
  if (of.status.type !== 'Admitted') return remove(env, id, net, index, of);
  const { host } = env;
  store.Admitted.remove(host, [id, index]);
  const left = (store.Contributors.get(host, [id, of.contributor]) ?? 1) - 1;
  if (left > 0) store.Contributors.insert(host, [id, of.contributor], left);
  else store.Contributors.remove(host, [id, of.contributor]);
  const next: Datanet = {
    ...net,
    admittedBatches: net.admittedBatches - 1,
    admitted: net.admitted - of.records,
    contributors: net.contributors - (left > 0 ? 0 : 1),
  };
  const out: Batch = { ...of, status: { type: 'Out', value: { from: net.snapshots, struck } } };
  if (!isNamed(next, out)) return remove(env, id, next, index, out);
  store.Batches.insert(host, [id, index], out);
  return next;
}

/** Whether a snapshot that is still there may name a batch that is out. */
export function isNamed({ oldestSnapshot, keptSnapshots }: Datanet, { since, status }: Batch): boolean {
  if (status.type !== 'Out') return status.type === 'Admitted';
  const { from } = status.value;
  return keptSnapshots > 0 && since < from && oldestSnapshot < from;
}

/** A batch leaves the state: nodes drop its records, its contributor has everything back that is still on hold. */
export function remove(env: Env, id: DatanetId, net: Datanet, index: number, of: Batch): Datanet {
  const { host } = env;
  const { contributor, blob, claim, stake, deposit } = of;
  blobs.release(env, claim);
  balances.release(env, BATCH_STAKE, contributor, stake);
  balances.release(env, BATCH_DEPOSIT, contributor, deposit);
  store.Committed.remove(host, [id, contributor, blob]);
  store.Batches.remove(host, [id, index]);
  if (stake > 0n) env.emit(events.StakeReleased, { id, batch: index, amount: stake });
  env.emit(events.Removed, { id, batch: index });
  return { ...net, entries: net.entries - 1 };
}

/** Validators hold the records of a claim: its batch is admitted, or waits for whoever decides. */
export function arrive(env: Env, claim: ClaimId): void {
  const { host } = env;
  const found = blobs.claimOf(host, claim);
  if (found?.purpose.type !== 'Records') return;
  const { datanet: id, batch: index } = found.purpose.value;
  const net = store.Datanets.get(host, id);
  const of = store.Batches.get(host, [id, index]);
  if (net === undefined || of?.status.type !== 'Waiting' || of.claim !== claim) return;
  env.emit(events.Arrived, { id, batch: index });
  const next = net.admission.type === 'Open' ? admit(env, id, net, index, of) : undefined;
  if (next === undefined) store.Batches.insert(host, [id, index], { ...of, status: { type: 'Pending' } });
  else store.Datanets.insert(host, id, next);
}

/** The time for attestations is over: a batch that still waits falls out, at no cost to anybody. */
export function expire(env: Env, id: DatanetId, index: number): void {
  const { host } = env;
  const net = store.Datanets.get(host, id);
  const of = store.Batches.get(host, [id, index]);
  if (net === undefined || of?.status.type !== 'Waiting') return;
  env.emit(events.Unavailable, { id, batch: index });
  store.Datanets.insert(host, id, remove(env, id, net, index, of));
}
