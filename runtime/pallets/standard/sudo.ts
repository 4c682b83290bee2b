/** Sudo: one key that acts as root (`pallet_sudo`). For development chains: without a key in the genesis it is disabled. */
import type { OuterCalls } from '../../framework/assembly.ts';
import {
  accountOf,
  actualWeight,
  addWeight,
  cost,
  type DispatchInfo,
  dispatchResult,
  ensure,
  ensureSigned,
  error,
  type Origin,
  type PostDispatchInfo,
  ROOT,
  resultOf,
  signed,
} from '../../framework/dispatch.ts';
import { call, event, pallet } from '../../framework/pallet.ts';
import type { RuntimeCall } from '../../framework/runtime-call.ts';
import { optionalValue, storage } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { option } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, multiAddress, sameAccount, weight } from '../../primitives/types.ts';

export const store = storage('Sudo', {
  Key: optionalValue(accountId, 'The AccountId of the sudo key.'),
});

export const events = {
  Sudid: event(0, { sudoResult: dispatchResult }, 'A sudo call just took place.'),
  KeyChanged: event(1, { old: option(accountId), new: accountId }, 'The sudo key has been updated.'),
  KeyRemoved: event(2, 'The key was permanently removed.'),
  SudoAsDone: event(3, { sudoResult: dispatchResult }, 'A sudo_as call just took place.'),
};

export const errors = {
  RequireSudo: error(0, 'Sender must be the Sudo account.'),
};

function ensureSudo(host: Host, origin: Origin): void {
  if (origin.type === 'Root') return;
  const who = ensureSigned(origin);
  const key = store.Key.get(host);
  ensure(key !== undefined && sameAccount(key, who), errors.RequireSudo);
}

const OWN = cost(8_000_000n, 1, 0);
const FREE: PostDispatchInfo = { paysFee: false };
const around = (inner: RuntimeCall, infoOf: (call: RuntimeCall) => DispatchInfo) => {
  const info = infoOf(inner);
  return { weight: addWeight(OWN, info.weight), class: info.class };
};

export interface SudoGenesis {
  readonly key: AccountId | undefined;
}

export const sudo = ({ codec }: OuterCalls) =>
  pallet({
    name: 'Sudo',
    index: 43,
    docs: 'A single key with the rights of root, for development chains.',
    storage: store,
    events,
    errors,
    calls: {
      sudo: call({
        index: 0,
        args: { call: codec },
        weight: ({ call: inner }, infoOf) => around(inner, infoOf),
        docs: 'Authenticates the sudo key and dispatches a function call with `Root` origin.',
        run(context, { call: inner }) {
          ensureSudo(context.host, context.origin);
          const outcome = context.dispatch(inner, ROOT);
          context.emit(events.Sudid, { sudoResult: resultOf(outcome) });
          return { ...FREE, actualWeight: addWeight(OWN, actualWeight(outcome, context.infoOf(inner))) };
        },
      }),
      sudoUncheckedWeight: call({
        index: 1,
        args: { call: codec, weight },
        weight: ({ call: inner, weight: given }, infoOf) => ({ weight: given, class: infoOf(inner).class }),
        docs: 'As `sudo`, with the weight that the sudo key says.',
        run(context, { call: inner }) {
          ensureSudo(context.host, context.origin);
          context.emit(events.Sudid, { sudoResult: resultOf(context.dispatch(inner, ROOT)) });
          return FREE;
        },
      }),
      setKey: call({
        index: 2,
        args: { new: multiAddress },
        weight: cost(8_000_000n, 1, 1),
        docs: 'Authenticates the current sudo key and sets the given AccountId as the new sudo key.',
        run({ host, origin, emit }, { new: next }) {
          ensureSudo(host, origin);
          const account = accountOf(next);
          emit(events.KeyChanged, { old: store.Key.get(host), new: account });
          store.Key.put(host, account);
          return FREE;
        },
      }),
      sudoAs: call({
        index: 3,
        args: { who: multiAddress, call: codec },
        weight: ({ call: inner }, infoOf) => around(inner, infoOf),
        docs: 'Authenticates the sudo key and dispatches a function call with `Signed` origin from a given account.',
        run(context, { who, call: inner }) {
          ensureSudo(context.host, context.origin);
          const outcome = context.dispatch(inner, signed(accountOf(who)));
          context.emit(events.SudoAsDone, { sudoResult: resultOf(outcome) });
          return { ...FREE, actualWeight: addWeight(OWN, actualWeight(outcome, context.infoOf(inner))) };
        },
      }),
      removeKey: call({
        index: 4,
        args: {},
        weight: cost(8_000_000n, 1, 1),
        docs: 'Permanently removes the sudo key. This cannot be un-done.',
        run({ host, origin, emit }) {
          ensureSudo(host, origin);
          emit(events.KeyRemoved);
          store.Key.kill(host);
          return FREE;
        },
      }),
    },
    genesis({ host }, { key }: SudoGenesis) {
      if (key !== undefined) store.Key.put(host, key);
    },
  });
