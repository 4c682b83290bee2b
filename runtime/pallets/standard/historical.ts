/**
 * Historical: who was a validator with which keys in past sessions, as one root a session (`pallet_session::historical`).
 * Evidence against a key of then comes with a proof of whose it was.
 */

import type { Env } from '../../framework/pallet.ts';
import { event, pallet } from '../../framework/pallet.ts';
import { map, optionalValue, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { leafHash, merkleRoot, proveRange, verifyLeaf } from '../../primitives/attribution/merkle.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { decode, encode, type Infer, struct, tuple, u32, u64 } from '../../primitives/scale/codec.ts';
import { ScaleError } from '../../primitives/scale/io.ts';
import {
  type KeyName,
  type MembershipProof,
  sessionKeys,
  type ValidatorKeys,
  validatorKeys,
} from '../../primitives/session-keys.ts';
import { type AccountId, accountId, asHash, hash } from '../../primitives/types.ts';

/** Sessions that are remembered where nobody says from which on they matter. */
export const KEPT_SESSIONS = 168;
/** Sessions that are forgotten at a time: after a very long era the rest goes with the sessions that follow. */
const MOST_FORGOTTEN = 16;

export const store = storage('Historical', {
  HistoricalSessions: map(
    twox64Concat(u32),
    tuple(hash, u32),
    'Mapping from historical session indices to session-data root hash and validator count.',
  ),
  StoredRange: optionalValue(tuple(u32, u32), 'The range of historical sessions we store. [first, last)'),
  FirstSlots: map(
    twox64Concat(u32),
    u64,
    'The slot of the block that began a session; the slots after it are the session’s.',
  ),
  Working: value(validatorKeys, [], 'The validators of the current session with the keys that they work with.'),
});

export const events = {
  RootStored: event(0, { index: u32 }, 'The merkle root of the validators of the said session were stored.'),
  RootsPruned: event(1, { upTo: u32 }, 'The merkle roots of up to this session index were pruned.'),
};

const leaf = struct({ index: u32, account: accountId, keys: sessionKeys });
const leafOf = ([account, keys]: ValidatorKeys[number], index: number): Uint8Array =>
  encode(leaf, { index, account, keys });
const leafHashes = (host: Host, keys: ValidatorKeys): Uint8Array[] =>
  keys.map((each, i) => leafHash(host, 'sessions', leafOf(each, i)));

/** Remembers who will work in a session, and forgets sessions before `first`. */
export function note(env: Env, index: number, keys: ValidatorKeys, first: number | undefined): void {
  const { host } = env;
  const root = merkleRoot(host, 'sessions', leafHashes(host, keys));
  store.HistoricalSessions.insert(host, index, [root, keys.length]);
  env.emit(events.RootStored, { index });
  const [from] = store.StoredRange.get(host) ?? [index];
  const wanted = Math.min(index, Math.max(from, first ?? index + 1 - KEPT_SESSIONS));
  const keep = Math.min(wanted, from + MOST_FORGOTTEN);
  for (let old = from; old < keep; old++) {
    store.HistoricalSessions.remove(host, old);
    store.FirstSlots.remove(host, old);
  }
  if (keep > from) env.emit(events.RootsPruned, { upTo: keep });
  store.StoredRange.put(host, [keep, index + 1]);
}

/** The session that begins with the block of a slot, and the keys that work in it. */
export function begin(host: Host, index: number, slot: bigint, keys: ValidatorKeys): void {
  store.Working.put(host, keys);
  store.FirstSlots.insert(host, index, slot);
}

/** The validators of the current session with the keys that they work with. */
export const workingKeys = (host: Host): ValidatorKeys => store.Working.get(host);

/** Whether the authors of a slot were those of a session. The block that begins one is still made by those before. */
export function isSlotOf(host: Host, slot: bigint, index: number): boolean {
  const first = store.FirstSlots.get(host, index);
  const next = store.FirstSlots.get(host, index + 1);
  return first !== undefined && first < slot && (next === undefined || slot <= next);
}

/** Proof of whose a key of the current session is; undefined if it is nobody's. */
export function prove(host: Host, session: number, name: KeyName, key: Uint8Array): MembershipProof | undefined {
  const working = store.Working.get(host);
  const at = working.findIndex(([, keys]) => equalBytes(keys[name], key));
  if (at < 0) return undefined;
  const { siblings } = proveRange(host, 'sessions', leafHashes(host, working), at);
  return { session, trieNodes: [leafOf(working[at]!, at), ...siblings], validatorCount: working.length };
}

function decodeLeaf(bytes: Uint8Array): Infer<typeof leaf> | undefined {
  try {
    return decode(leaf, bytes);
  } catch (problem) {
    if (problem instanceof ScaleError) return undefined;
    throw problem;
  }
}

/** The validator whose key it was; undefined where the proof does not show it or the session is forgotten. */
export function ownerOf(host: Host, name: KeyName, key: Uint8Array, proof: MembershipProof): AccountId | undefined {
  const [root, count] = store.HistoricalSessions.get(host, proof.session) ?? [];
  const [first, ...siblings] = proof.trieNodes;
  if (root === undefined || count !== proof.validatorCount || first === undefined) return undefined;
  const owner = decodeLeaf(first);
  if (owner === undefined || !equalBytes(owner.keys[name], key)) return undefined;
  if (siblings.some((each) => each.length !== 32)) return undefined;
  const path = { first: owner.index, siblings: siblings.map(asHash) };
  return verifyLeaf(host, 'sessions', root, count, leafHash(host, 'sessions', first), path) ? owner.account : undefined;
}

export const historical = pallet({
  name: 'Historical',
  index: 34,
  crate: 'pallet_session_historical',
  docs: 'Whose a key was in past sessions.',
  storage: store,
  events,
});
