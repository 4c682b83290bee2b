/**
 * Session: validators, the keys they work with, and the hand-over from one set to the next (`pallet_session`).
 *
 * What the manager chooses at the end of session `n - 1` is queued during `n` and works in `n + 1`; keys set during `n`
 * work from `n + 2` on. Aura and Grandpa hear of a set only when it differs from theirs.
 *
 * Whoever registers keys proves that it holds their secrets, leaves a deposit, and owns them until the last session in which
 * they work is over: replacing or purging keys takes nothing from the sessions that they are queued for. A set is never
 * empty: where none of those chosen has keys, those at work go on with the keys that they have.
 */
import { addWeight, cost, ensure, ensureSigned, error, fail, ZERO_WEIGHT } from '../../framework/dispatch.ts';
import { apiMethod, call, constant, type Env, event, pallet, type Reason, runtimeApi } from '../../framework/pallet.ts';
import { map, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { equalBytes, toHex } from '../../primitives/bytes.ts';
import { bool, bytes, decode, named, option, tuple, u32, vec } from '../../primitives/scale/codec.ts';
import { ScaleError } from '../../primitives/scale/io.ts';
import {
  isOwnershipProof,
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
import {
  type AccountId,
  accountId,
  type Balance,
  balance,
  PERBILL,
  perbill,
  sameAccount,
  type Weight,
} from '../../primitives/types.ts';
import * as aura from './aura/authorities.ts';
import * as balances from './balances.ts';
import * as grandpa from './grandpa/authorities.ts';
import * as historical from './historical.ts';
import * as system from './system.ts';

const INDEX = 32;
/** Registered keys are kept in the state for as long as this is on hold. */
export const KEYS_HOLD: Reason = { pallet: INDEX, reason: 0 };
export const KEY_DEPOSIT: Balance = 10n ** 18n;
/** Bytes of a proof that `set_keys` looks at; a valid one has 64 for each key. */
const MAX_PROOF_BYTES = 1_024;

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
    'Indices of disabled validators, in order, and how bad what they did is. They stay out of duty, whatever keys they set, until the set of an election that was held later begins to work.',
  ),
  Redeemed: value(
    vec(accountId),
    [],
    'Disabled validators of the time of the last election: its set begins to work with them back in duty.',
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

const isAmong = (keys: ValidatorKeys, name: KeyName, key: Uint8Array): boolean =>
  keys.some(([, own]) => equalBytes(own[name], key));
/** Whether a key works in this session or in the next one. */
const isInUse = (host: Host, name: KeyName, key: Uint8Array): boolean =>
  isAmong(historical.workingKeys(host), name, key) || isAmong(store.QueuedKeys.get(host), name, key);

/** Gives up keys that are not registered any more; what is in use stays reserved for its owner until it is not. */
function giveUp(host: Host, keys: SessionKeys, kept?: SessionKeys): void {
  for (const name of KEY_NAMES) {
    if (kept !== undefined && equalBytes(kept[name], keys[name])) continue;
    if (!isInUse(host, name, keys[name])) store.KeyOwner.remove(host, [KEY_TYPES[name], keys[name]]);
  }
}

/** Registers keys that nobody else has; returns those that were registered before. Fails with `DuplicatedKey`. */
function putKeys(host: Host, who: AccountId, keys: SessionKeys): SessionKeys | undefined {
  const old = store.NextKeys.get(host, who);
  for (const name of KEY_NAMES) {
    const owner = keyOwner(host, name, keys[name]);
    ensure(owner === undefined || sameAccount(owner, who), errors.DuplicatedKey);
  }
  if (old !== undefined) giveUp(host, old, keys);
  for (const name of KEY_NAMES) store.KeyOwner.insert(host, [KEY_TYPES[name], keys[name]], who);
  store.NextKeys.insert(host, who, keys);
  return old;
}

/** Frees the keys that worked in the session before and are neither registered nor in use now. */
function freeKeys(host: Host, worked: ValidatorKeys): void {
  const used = new Set(
    [...historical.workingKeys(host), ...store.QueuedKeys.get(host)].flatMap(([, keys]) =>
      KEY_NAMES.map((name) => `${name} ${toHex(keys[name])}`),
    ),
  );
  for (const [who, keys] of worked) {
    const registered = store.NextKeys.get(host, who);
    for (const name of KEY_NAMES) {
      const key = keys[name];
      if (used.has(`${name} ${toHex(key)}`)) continue;
      if (registered === undefined || !equalBytes(registered[name], key)) {
        store.KeyOwner.remove(host, [KEY_TYPES[name], key]);
      }
    }
  }
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
  const redeemed = store.Redeemed.get(host);
  const left = redeemed.filter((each) => !sameAccount(each, who));
  if (left.length < redeemed.length) store.Redeemed.put(host, left);
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
  return disabled.length > 0 && disabled.includes(validators(host).findIndex((each) => sameAccount(each, who)));
}

/** Validators that may be out of duty at a time: more would stop finality. */
export const disablingLimit = (count: number): number => Math.floor((count - 1) / 3);

type Disabled = readonly (readonly [who: AccountId, severity: number])[];

const disabledAccounts = (host: Host): Disabled => {
  const all = validators(host);
  return store.DisabledValidators.get(host).flatMap(([at, severity]) => {
    const who = all[at];
    return who === undefined ? [] : [[who, severity] as const];
  });
};

/** Takes those out of duty over to the set that begins to work, but for the redeemed: the worst ones, up to the limit. */
function carryDisabled(host: Host, before: Disabled): void {
  const redeemed = store.Redeemed.take(host);
  const now = validators(host);
  const kept = before
    .flatMap(([who, severity]): [number, number][] => {
      const at = now.findIndex((each) => sameAccount(each, who));
      return at < 0 || redeemed.some((each) => sameAccount(each, who)) ? [] : [[at, severity]];
    })
    .sort(([a, worseA], [b, worseB]) => worseB - worseA || a - b)
    .slice(0, disablingLimit(now.length))
    .sort(([a], [b]) => a - b);
  if (kept.length === 0) store.DisabledValidators.kill(host);
  else store.DisabledValidators.put(host, kept);
}

/** The keys of those chosen for the session after the next; where none has any, those at work go on. */
function keysOfChosen(host: Host, chosen: readonly AccountId[], working: ValidatorKeys): ValidatorKeys {
  const queued = chosen.flatMap((who): ValidatorKeys => {
    const keys = store.NextKeys.get(host, who);
    return keys === undefined ? [] : [[who, keys]];
  });
  return queued.length > 0 ? queued : working;
}

/** Ends a session and begins the next: the queued set works, the one after it is queued. */
function rotate(env: Env, manager: SessionManager): void {
  const { host } = env;
  const ended = store.CurrentIndex.get(host);
  const changed = store.QueuedChanged.get(host);
  manager.endSession?.(env, ended);

  const worked = historical.workingKeys(host);
  const disabled = disabledAccounts(host);
  const working = store.QueuedKeys.get(host);
  store.Validators.put(
    host,
    working.map(([who]) => who),
  );
  if (changed) carryDisabled(host, disabled);
  const index = ended + 1;
  store.CurrentIndex.put(host, index);
  historical.begin(host, index, aura.currentSlot(host), working);
  manager.startSession?.(env, index);

  const chosen = manager.newSession(env, index + 1);
  if (chosen !== undefined) {
    store.Redeemed.put(
      host,
      disabledAccounts(host).map(([who]) => who),
    );
  }
  const queued = keysOfChosen(host, chosen ?? store.Validators.get(host), working);
  // Without a new choice the two lists name the same validators, unless one gave its keys up.
  const keysChanged =
    queued.length !== working.length ||
    queued.some(([, keys], i) => {
      const before = working[i];
      return before === undefined || !sameKeys(before[1], keys);
    });
  store.QueuedKeys.put(host, queued);
  store.QueuedChanged.put(host, chosen !== undefined || keysChanged);
  freeKeys(host, worked);
  const first = manager.firstSession?.(host);
  historical.note(env, index + 1, queued, first);
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
    { session: index, first },
  );
}

/** Of a rotation, by the number of validators. */
const rotationWeight = (count: number): Weight =>
  cost(60_000_000n + 4_000_000n * BigInt(count), 14 + 2 * count, 16 + 2 * count);

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
  pallet({
    name: 'Session',
    index: INDEX,
    docs: 'Validators, their keys, and the change of both.',
    storage: store,
    events,
    errors,
    holdReasons: { Keys: KEYS_HOLD },
    constants: {
      SessionLength: constant(u32, sessionLength, 'Blocks of a session.'),
      KeyDeposit: constant(balance, KEY_DEPOSIT, 'The amount that is on hold while an account has session keys.'),
    },
    calls: {
      setKeys: call({
        index: 0,
        args: { keys: sessionKeys, proof: bytes(MAX_PROOF_BYTES) },
        weight: cost(800_000_000n, 12, 9),
        docs: 'Sets the session key(s) of the function caller to `keys`; they work from the session after the next on, and the old ones until then.\n`proof`: what `author_rotateKeysWithOwner` answers beside the keys, the signatures by each key over `POP_` and the caller.',
        run(context, { keys, proof }) {
          const { host, origin } = context;
          const who = ensureSigned(origin);
          ensure(isOwnershipProof(host, keys, who, proof), errors.InvalidProof);
          ensure(system.accountExists(host, who), errors.NoAccount);
          if (putKeys(host, who, keys) !== undefined) return;
          balances.hold(context, KEYS_HOLD, who, KEY_DEPOSIT);
          system.incConsumers(host, who);
        },
      }),
      purgeKeys: call({
        index: 1,
        args: {},
        weight: cost(20_000_000n, 7, 6),
        docs: 'Removes any session key(s) of the function caller. Those that work in this session or the next go on until then.',
        run(context) {
          const { host, origin } = context;
          const who = ensureSigned(origin);
          const old = store.NextKeys.take(host, who) ?? fail(errors.NoKeys);
          giveUp(host, old);
          system.decConsumers(host, who);
          balances.release(context, KEYS_HOLD, who, balances.heldOf(host, KEYS_HOLD, who));
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
    genesis(env, { keys, length }: SessionGenesis) {
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
