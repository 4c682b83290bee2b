/** Names: each is one adapter's on the whole chain, with a deposit, and free again a while after the adapter is gone. */
import { ensure, fail } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import type { Host } from '../../../host.ts';
import type { AdapterId, OrderId } from '../../../primitives/attribution/ids.ts';
import { isAdapterName, skeletonOf } from '../../../primitives/attribution/names.ts';
import { type AccountId, sameAccount } from '../../../primitives/types.ts';
import * as balances from '../../standard/balances.ts';
import * as system from '../../standard/system.ts';
import { errors, events, NAME_DEPOSIT, parameters, store } from './store.ts';
import type { Adapter, NameEntry } from './types.ts';

/** The adapter that bears exactly this name. */
export function adapterNamed(host: Host, name: string): AdapterId | undefined {
  const found = store.Names.get(host, skeletonOf(name));
  return found?.name === name && found.target.type === 'Adapter' ? found.target.value : undefined;
}

/** Gives an order a name that nobody else has or had a short while ago. Fails with `BadName` or `NameTaken`. */
export function reserveName(env: Env, name: string, owner: AccountId, order: OrderId): void {
  const { host } = env;
  ensure(isAdapterName(name), errors.BadName);
  const key = skeletonOf(name);
  const before = store.Names.get(host, key);
  if (before !== undefined) {
    const { target } = before;
    ensure(target.type === 'Free', errors.NameTaken);
    ensure(sameAccount(before.owner, owner) || system.blockNumber(host) >= target.value, errors.NameTaken);
    balances.release(env, NAME_DEPOSIT, before.owner, before.deposit);
  }
  const { nameDeposit: deposit } = parameters.get(host);
  balances.hold(env, NAME_DEPOSIT, owner, deposit);
  store.Names.insert(host, key, { name, owner, deposit, target: { type: 'Order', value: order } });
}

/** Points a name elsewhere. */
export function point(host: Host, name: string, target: NameEntry['target']): void {
  store.Names.mutate(host, skeletonOf(name), (found) => found && { ...found, target });
}

/** Whatever bore the name is gone. For a while only its owner can use it again, so that nobody takes its place at once. */
export function freeName(env: Env, name: string): void {
  const from = system.blockNumber(env.host) + parameters.get(env.host).nameGrace;
  point(env.host, name, { type: 'Free', value: from });
  env.emit(events.NameFree, { name, from });
}

/** The owner of a name that nothing bears gives it up, at once and with its deposit. */
export function giveUpName(env: Env, name: string, who: AccountId): void {
  const { host } = env;
  const key = skeletonOf(name);
  const found = store.Names.get(host, key);
  if (found?.name !== name || found.target.type !== 'Free') fail(errors.UnknownName);
  ensure(sameAccount(found.owner, who), errors.NotOwner);
  store.Names.remove(host, key);
  balances.release(env, NAME_DEPOSIT, who, found.deposit);
  env.emit(events.NameFree, { name, from: system.blockNumber(host) });
}

/** The name goes with its adapter to another owner, who has the deposit for it on hold from now on. */
export function handName(env: Env, { name, owner }: Adapter, to: AccountId): void {
  const key = skeletonOf(name);
  const found = store.Names.get(env.host, key) ?? fail(errors.UnknownName);
  balances.release(env, NAME_DEPOSIT, owner, found.deposit);
  balances.hold(env, NAME_DEPOSIT, to, found.deposit);
  store.Names.insert(env.host, key, { ...found, owner: to });
}
