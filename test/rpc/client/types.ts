/**
 * What must not compile: every line under `@ts-expect-error` is a mistake that the compiler finds (`npm run check`). Nothing
 * here runs.
 */
import { callOf, toAccount } from '../../../rpc/client/call.ts';
import { type CallFailed, failedWith } from '../../../rpc/client/errors.ts';
import type { Ledger } from '../../../rpc/client/ledger.ts';
import * as pallets from '../../../rpc/client/pallets.ts';
import type { Signer } from '../../../rpc/client/signer.ts';
import type { DatanetId, OrderId } from '../../../runtime/primitives/attribution/ids.ts';
import type { AccountId, Balance } from '../../../runtime/primitives/types.ts';

const { balances, compute, datanets, models, system, utility } = pallets;

export async function mistakes(ledger: Ledger, key: Signer, who: AccountId, order: OrderId, net: DatanetId) {
  // Pallets, items, keys.
  // @ts-expect-error no such pallet
  pallets.computr;
  // @ts-expect-error no such item
  await ledger.read(compute.store.Wrokers, who);
  // @ts-expect-error the key of a worker is an account
  await ledger.read(compute.store.Workers, order);
  // @ts-expect-error a plain number is no order
  await ledger.read(compute.store.Tasks, 7);
  // @ts-expect-error one id is not another
  await ledger.read(compute.store.Tasks, net);
  // @ts-expect-error a map wants a key
  await ledger.read(compute.store.Workers);
  // @ts-expect-error a single value has none
  await ledger.read(datanets.store.NextId, net);
  // @ts-expect-error both parts of a key
  await ledger.read(datanets.store.Batches, net);
  // @ts-expect-error the leading part of a key is a Datanet
  ledger.entries(datanets.store.Batches, order);
  // @ts-expect-error a map with one key part has no leading ones
  ledger.entries(compute.store.Tasks, order);
  // @ts-expect-error a watched map wants a key too
  ledger.watch(compute.store.Workers);

  // Values.
  const worker = await ledger.read(compute.store.Workers, who);
  // @ts-expect-error there may be none
  worker.bond;
  // @ts-expect-error no such field
  worker?.bnod;
  const account = await ledger.read(system.store.Account, who);
  const free: Balance = account.data.free;
  // @ts-expect-error a balance is no number
  const wrong: number = account.data.free;
  for await (const [id, task] of ledger.entries(compute.store.Tasks)) {
    const own: OrderId = id;
    // @ts-expect-error of an order, not of a Datanet
    const other: DatanetId = id;
    // @ts-expect-error no such status
    if (task.status.type === 'Opne') return [own, other];
  }

  // Calls and arguments.
  // @ts-expect-error no such call
  await ledger.submit(key, compute.calls.takeLeese, { order });
  // @ts-expect-error no such argument
  await ledger.submit(key, compute.calls.takeLease, { odrer: order });
  // @ts-expect-error an argument of another type
  await ledger.submit(key, compute.calls.takeLease, { order: 'not an order' });
  // @ts-expect-error one argument too many
  await ledger.submit(key, compute.calls.takeLease, { order, nonsense: true });
  // @ts-expect-error arguments are missing
  await ledger.submit(key, compute.calls.takeLease);
  // @ts-expect-error this one takes none
  await ledger.submit(key, compute.calls.leave, { order });
  // @ts-expect-error an account is not yet an address
  callOf(balances.calls.transferKeepAlive, { dest: who, value: free });
  // @ts-expect-error calls in calls are calls
  callOf(utility.calls.batchAll, { calls: [order] });

  // Events and errors.
  const made = await ledger.submit(key, compute.calls.leave);
  const { until } = made.event(compute.events.Leaving);
  const block: number = until;
  // @ts-expect-error no such event
  made.event(compute.events.Laeving);
  // @ts-expect-error no such field
  made.event(compute.events.Leaving).utnil;
  // @ts-expect-error an error is no event
  made.event(compute.errors.NotLeaving);
  const failure = {} as CallFailed;
  // @ts-expect-error no such error
  failure.is(models.errors.NotOwnr);
  // @ts-expect-error an event is no error
  failedWith(failure, models.events.Ordered);

  // And what is right.
  failure.is(models.errors.NotOwner);
  callOf(utility.calls.batchAll, {
    calls: [callOf(balances.calls.transferKeepAlive, { dest: toAccount(who), value: free })],
  });
  return [wrong, block, callOf(compute.calls.leave)];
}
