/**
 * Session: validators, the keys they work with, and the hand-over from one set to the next (`pallet_session`).
 *
 * What the manager chooses at the end of session `n - 1` is queued during `n` and works in `n + 1`; keys set during `n`
 * work from `n + 2` on. Aura and Grandpa hear of a set only when it differs from theirs.
 */
import { addWeight, cost, ensure, ensureSigned, error, fail, ZERO_WEIGHT } from '../../framework/dispatch.ts';
import { apiMethod, call, constant, type Env, event, pallet, runtimeApi } from '../../framework/pallet.ts';
import { map, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { bool, bytes, decode, named, option, tuple, u32, vec } from '../../primitives/scale/codec.ts';
import { ScaleError } from '../../primitives/scale/io.ts';
import {
  KEY_NAMES,
  KEY_TYPES,
  type KeyName,
  keyTypeId,
  type SessionKeys,
  sameKeys,
  sessionKeys,
  type ValidatorKeys,
  validatorKeys,
} from '../../primitives/session-keys.ts';
import { type AccountId, accountId, PERBILL, perbill, sameAccount, type Weight } from '../../primitives/types.ts';
import * as aura from './aura/authorities.ts';
import * as grandpa from './grandpa/authorities.ts';
import * as historical from './historical.ts';
import * as system from './system.ts';

/** Half an hour of slots of three seconds. */
export const DEFAULT_SESSION_LENGTH = 600;

// ---- types ---------------------------------------------------------------------------------------------------

const offenceSeverity = named('sp_staking::offence::OffenceSeverity', perbill);

const typedKey = tuple(keyTypeId, bytes());

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Session', {
  Validators: value(vec(accountId), [], 'The current set of validators.'),
  CurrentIndex: value(u32, 0, 'Current index of the session.'),
  QueuedChanged: value(
    bool,
    false,
    'True if the underlying economic identities or weighting behind the validators has changed in the queued validator set.',
  ),
  QueuedKeys: value(
    validatorKeys,
    [],
    "The queued keys for the next session. When the next session begins, these keys will be used to determine the validator's session keys.",
  ),
  DisabledValidators: value(
    vec(tuple(u32, offenceSeverity)),
    [],
    'Indices of disabled validators, in order, and how bad what they did is; cleared when the set changes.',
  ),
  NextKeys: map(twox64Concat(accountId), sessionKeys, 'The next session keys for a validator.'),
  KeyOwner: map(twox64Concat(typedKey), accountId, 'The owner of a key. The key is the `KeyTypeId` + the encoded key.'),
  Length: value(u32, DEFAULT_SESSION_LENGTH, 'Blocks of a session, set by the chain spec for good.'),
});

export const events = {
  NewSession: event(
    0,
    { sessionIndex: u32 },
    'New session has happened. Note that the argument is the session index, not the block number as the type might suggest.',
  ),
  ValidatorDisabled: event(1, { validator: accountId }, 'Validator has been disabled.'),
  ValidatorReenabled: event(2, { validator: accountId }, 'Validator has been re-enabled.'),
};

export const errors = {
  InvalidProof: error(0, 'Invalid ownership proof.'),
  NoAssociatedValidatorId: error(1, 'No associated validator ID for account.'),
  DuplicatedKey: error(2, 'Registered duplicate key.'),
  NoKeys: error(3, 'No keys are associated with this account.'),
  NoAccount: error(4, "Key setting account is not live, so it's impossible to associate keys."),
};

// ---- keys ----------------------------------------------------------------------------------------------------

/** The validator that registered a key. */
export const keyOwner = (host: Host, name: KeyName, key: Uint8Array): AccountId | undefined =>
  store.KeyOwner.get(host, [KEY_TYPES[name], key]);
export const validators = (host: Host): readonly AccountId[] => store.Validators.get(host);
export const currentIndex = (host: Host): number => store.CurrentIndex.get(host);
export const sessionLength = (host: Host): number => store.Length.get(host);
/** The keys that a validator works with once they have been queued. */
export const nextKeys = (host: Host, who: AccountId): SessionKeys | undefined => store.NextKeys.get(host, who);

/** Registers keys that nobody else has; returns those that were registered before. Fails with `DuplicatedKey`. */
function putKeys(host: Host, who: AccountId, keys: SessionKeys): SessionKeys | undefined {
  const old = store.NextKeys.get(host, who);
  for (const name of KEY_NAMES) {
    const owner = keyOwner(host, name, keys[name]);
    ensure(owner === undefined || sameAccount(owner, who), errors.DuplicatedKey);
  }
  for (const name of KEY_NAMES) {
    if (old !== undefined && !equalBytes(old[name], keys[name])) {
      store.KeyOwner.remove(host, [KEY_TYPES[name], old[name]]);
    }
    store.KeyOwner.insert(host, [KEY_TYPES[name], keys[name]], who);
  }
  store.NextKeys.insert(host, who, keys);
  return old;
}

// ---- rotation ------------------------------------------------------------------------------------------------

/** Chooses the validators; staking is one, a list for ever is another. */
export interface SessionManager {
  /** The validators of session `index`, at the start of the one before it; undefined: the same as now. */
  newSession(env: Env, index: number): readonly AccountId[] | undefined;
  startSession?(env: Env, index: number): void;
  endSession?(env: Env, index: number): void;
  /** Of all that, at the start of the session before `index`. */
  weight?(host: Host, index: number): Weight;
  /** The first session whose validators must still be known, to answer for what they did. */
  firstSession?(host: Host): number | undefined;
}

/** A set that changes by the keys of its validators only. */
export const SAME_VALIDATORS: SessionManager = { newSession: () => undefined };

/**
 * Takes a validator out of the current session's duties, as after an equivocation. False if it is none or out already; the
 * worse severity stays.
 */
export function disable(env: Env, who: AccountId, severity = PERBILL): boolean {
  const { host } = env;
  const index = validators(host).findIndex((each) => sameAccount(each, who));
  if (index < 0) return false;
  const disabled = store.DisabledValidators.get(host);
  const before = disabled.find(([at]) => at === index);
  const others = disabled.filter((each) => each !== before);
  const entry: [number, number] = [index, Math.max(severity, before?.[1] ?? 0)];
  store.DisabledValidators.put(
    host,
    [...others, entry].sort(([a], [b]) => a - b),
  );
  if (before === undefined) env.emit(events.ValidatorDisabled, { validator: who });
  return before === undefined;
}

/** Lets a validator back in that was taken out by mistake. False if it is not out. */
export function reenable(env: Env, who: AccountId): boolean {
  const index = validators(env.host).findIndex((each) => sameAccount(each, who));
  const disabled = store.DisabledValidators.get(env.host);
  const left = disabled.filter(([at]) => at !== index);
  if (left.length === disabled.length) return false;
  store.DisabledValidators.put(env.host, left);
  env.emit(events.ValidatorReenabled, { validator: who });
  return true;
}

/** Positions among the validators. */
export const disabledValidators = (host: Host): readonly number[] =>
  store.DisabledValidators.get(host).map(([index]) => index);

/** Whether a validator of the current session is out of its duties. */
export function isDisabled(host: Host, who: AccountId): boolean {
  const disabled = disabledValidators(host);
  return (
    disabled.length > 0 && disabled.some((at) => validators(host).findIndex((each) => sameAccount(each, who)) === at)
  );
}

/** Ends a session and begins the next: the queued set works, the one after it is queued. */
function rotate(env: Env, manager: SessionManager): void {
  const { host } = env;
  const ended = store.CurrentIndex.get(host);
  const changed = store.QueuedChanged.get(host);
  manager.endSession?.(env, ended);

  const working = store.QueuedKeys.get(host);
  store.Validators.put(
    host,
    working.map(([who]) => who),
  );
  if (changed) store.DisabledValidators.kill(host);
  const index = ended + 1;
  store.CurrentIndex.put(host, index);
  historical.begin(host, index, aura.currentSlot(host), working);
  manager.startSession?.(env, index);

  const chosen = manager.newSession(env, index + 1);
  const queued = (chosen ?? store.Validators.get(host)).flatMap((who): ValidatorKeys => {
    const keys = store.NextKeys.get(host, who);
    return keys === undefined ? [] : [[who, keys]];
  });
  // Without a new choice the two lists name the same validators, unless one gave its keys up.
  const keysChanged =
    queued.length !== working.length ||
    queued.some(([, keys], i) => {
      const before = working[i];
      return before === undefined || !sameKeys(before[1], keys);
    });
  store.QueuedKeys.put(host, queued);
  store.QueuedChanged.put(host, chosen !== undefined || keysChanged);
  historical.note(env, index + 1, queued, manager.firstSession?.(host));
  env.emit(events.NewSession, { sessionIndex: index });

  if (!changed) {
    grandpa.noteSession(host, index);
    return;
  }
  aura.changeAuthorities(
    env,
    working.map(([, keys]) => keys.aura),
  );
  grandpa.changeAuthorities(
    env,
    working.map(([, keys]): [Uint8Array, bigint] => [keys.grandpa, 1n]),
    index,
  );
}

/** Of a rotation, by the number of validators. */
const rotationWeight = (count: number): Weight => cost(60_000_000n + 2_000_000n * BigInt(count), 10 + count, 12);

// ---- the pallet ----------------------------------------------------------------------------------------------

export interface SessionGenesis {
  readonly keys: readonly ({ readonly account: AccountId } & SessionKeys)[];
  /** Blocks of a session. */
  readonly length?: number | undefined;
}

const decodedKeys = option(vec(tuple(bytes(), keyTypeId)));

/** The keys in a concatenation of them with their types; undefined if it is none. */
function decodeKeys(encoded: Uint8Array): [Uint8Array, Uint8Array][] | undefined {
  try {
    const keys = decode(sessionKeys, encoded);
    return KEY_NAMES.map((name) => [keys[name], KEY_TYPES[name]]);
  } catch (problem) {
    if (problem instanceof ScaleError) return undefined;
    throw problem;
  }
}

export const session = (manager: SessionManager = SAME_VALIDATORS) =>
  pallet<SessionGenesis>({
    name: 'Session',
    index: 32,
    docs: 'Validators, their keys, and the change of both.',
    storage: store,
    events,
    errors,
    constants: {
      SessionLength: constant(u32, sessionLength, 'Blocks of a session.'),
    },
    calls: {
      setKeys: call({
        index: 0,
        args: { keys: sessionKeys, proof: bytes() },
        weight: cost(30_000_000n, 6, 7),
        docs: 'Sets the session key(s) of the function caller to `keys`; they work from the session after the next on.',
        run({ host, origin }, { keys }) {
          const who = ensureSigned(origin);
          if (store.NextKeys.has(host, who)) {
            putKeys(host, who, keys);
            return;
          }
          ensure(system.accountExists(host, who), errors.NoAccount);
          putKeys(host, who, keys);
          system.incConsumers(host, who);
        },
      }),
      purgeKeys: call({
        index: 1,
        args: {},
        weight: cost(20_000_000n, 3, 5),
        docs: 'Removes any session key(s) of the function caller.',
        run({ host, origin }) {
          const who = ensureSigned(origin);
          const old = store.NextKeys.take(host, who) ?? fail(errors.NoKeys);
          for (const name of KEY_NAMES) store.KeyOwner.remove(host, [KEY_TYPES[name], old[name]]);
          system.decConsumers(host, who);
        },
      }),
    },
    hooks: {
      onInitialize(env, number) {
        if (number % sessionLength(env.host) !== 0) return NO_ROTATION;
        const { host } = env;
        const own = rotationWeight(validators(host).length);
        const managed = manager.weight?.(host, currentIndex(host) + 2) ?? ZERO_WEIGHT;
        rotate(env, manager);
        return addWeight(own, managed);
      },
    },
    apis: [
      runtimeApi({
        name: 'SessionKeys',
        version: 1,
        docs: 'Session keys, as the node makes and takes them.',
        methods: {
          decode_session_keys: apiMethod({
            inputs: { encoded: bytes() },
            output: decodedKeys,
            docs: 'Decode the given public session keys: the list of public raw keys and their key types.',
            run: (_env, { encoded }) => decodeKeys(encoded),
          }),
        },
      }),
    ],
    genesis(env, { keys, length }) {
      const { host } = env;
      if (length !== undefined) store.Length.put(host, length);
      for (const { account, ...own } of keys) {
        putKeys(host, account, own);
        const info = system.account(host, account);
        system.putAccount(host, account, system.withConsumer(system.isAlive(info) ? info : { ...info, providers: 1 }));
      }
      const withKeys = (chosen: readonly AccountId[]): ValidatorKeys =>
        chosen.flatMap((who): ValidatorKeys => {
          const own = store.NextKeys.get(host, who);
          return own === undefined ? [] : [[who, own]];
        });
      const elected = manager.newSession(env, 0);
      const first = withKeys(elected ?? keys.map(({ account }) => account));
      const second = withKeys(manager.newSession(env, 1) ?? first.map(([who]) => who));
      manager.startSession?.(env, 0);
      store.Validators.put(
        host,
        first.map(([who]) => who),
      );
      store.QueuedKeys.put(host, second);
      if (elected !== undefined) {
        aura.beginWith(
          host,
          first.map(([, own]) => own.aura),
        );
        grandpa.beginWith(
          host,
          first.map(([, own]): [Uint8Array, bigint] => [own.grandpa, 1n]),
        );
      }
      historical.begin(host, 0, 0n, first);
      historical.note(env, 0, first, undefined);
      historical.note(env, 1, second, undefined);
    },
  });

const NO_ROTATION = cost(1_000_000n, 1);
