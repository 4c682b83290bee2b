/** The runtime in this process, over an empty state: calls are dispatched one by one, blocks are made by hand. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { blake2b } from '@noble/hashes/blake2.js';
import { blake3 } from '@noble/hashes/blake3.js';
import { runtimeHost } from '../../../node/chain/runtime-host.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { createSignatures } from '../../../node/crypto/signatures.ts';
import { Database } from '../../../node/database/database.ts';
import { StateDatabase } from '../../../node/state/state-database.ts';
import { Execution } from '../../../runtime/executive/execution.ts';
import { type DispatchOutcome, type Origin, ROOT, signed } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import type { GenesisConfig } from '../../../runtime/genesis.ts';
import * as balances from '../../../runtime/pallets/standard/balances.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { AURA_ENGINE, type Header } from '../../../runtime/primitives/header.ts';
import { encode, tuple, u64, vec } from '../../../runtime/primitives/scale/codec.ts';
import { Source } from '../../../runtime/primitives/scale/io.ts';
import { type AccountId, asAccountId, asHash, type Hash, hash, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { createRuntime } from '../../../runtime/runtime.ts';

export const OPEN = 10n ** 18n;
export const ENDOWMENT = 1_000n * OPEN;
/** An account of one repeated byte. */
export const person = (byte: number): AccountId => asAccountId(new Uint8Array(32).fill(byte));
export const [ALICE, BOB, CHARLIE, DAVE, EVE] = [1, 2, 3, 4, 5].map(person) as [
  AccountId,
  AccountId,
  AccountId,
  AccountId,
  AccountId,
];

export const make = (pallet: string, call: string, value?: unknown): RuntimeCall => ({
  type: pallet,
  value: value === undefined ? { type: call } : { type: call, value },
});
export const to = (account: AccountId) => ({ type: 'Id', value: account });
export const transfer = (dest: AccountId, value: bigint): RuntimeCall =>
  make('Balances', 'transfer_allow_death', { dest: to(dest), value });
export const remark = (text = 'hello'): RuntimeCall =>
  make('System', 'remark_with_event', { remark: new TextEncoder().encode(text) });
/** Names of the fields of a genesis that a test does not care about. */
export const genesisOf = (part: Partial<GenesisConfig> = {}): GenesisConfig => ({
  balances: [ALICE, BOB, CHARLIE, DAVE, EVE].map((account) => ({ account, amount: ENDOWMENT })),
  aura: { authorities: [ALICE], slotDurationMs: 3_000 },
  grandpa: { authorities: [{ key: ALICE, weight: 1n }] },
  session: [],
  sudo: undefined,
  others: {},
  ...part,
});

export interface EventRecord {
  readonly name: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into events of all shapes
  readonly value: any;
}

export async function createWorld(genesis: GenesisConfig = genesisOf(), genesisHash: Hash = ZERO_HASH) {
  const directory = await mkdtemp(join(tmpdir(), 'pallets-'));
  const database = await Database.open(directory);
  const hashing = createHashing();
  const signatures = await createSignatures();
  const states = await StateDatabase.open(database, hashing.blake2_256, { pruning: 'archive' });
  const host = runtimeHost(states.empty(), hashing, signatures, () => {});
  const runtime = createRuntime({ blake2_64: (data) => blake2b(data, { dkLen: 8 }), blake3 });
  const { executive } = runtime;
  const { assembly } = executive;
  runtime.genesis(host, genesis, new Uint8Array());
  const records = vec(tuple(system.phase, assembly.event, vec(hash)));
  let number = 0;
  let open = false;
  /** Slots in which no block was possible. */
  let empty = 0;

  const events = (): EventRecord[] => {
    const stored = host.get(system.eventsKey(host));
    if (stored === undefined) return [];
    return records.decodeFrom(new Source(stored)).map(([, { type, value }]) => ({
      name: `${type}.${value.type}`,
      value: value.value,
    }));
  };
  /** Whether all accounts together have what the ledger says there is. */
  const balanced = (): boolean => {
    const { held, issued } = balances.books(host);
    return held === issued;
  };
  /** Ends the block under way, whose books must balance. */
  const finish = (): Header | undefined => {
    if (!open) return undefined;
    open = false;
    const header = executive.finalizeBlock(host);
    if (!balanced()) throw new Error(`the books do not balance after block ${number}`);
    return header;
  };
  /**
   * Ends the block under way and begins the next, up to block `until` of them. Returns the header of the last one ended.
   * A block that cannot begin leaves no trace but an empty slot, and what is wrong with it is thrown.
   */
  const next = (until = number + 1): Header | undefined => {
    let last: Header | undefined;
    while (number < until) {
      last = finish();
      number++;
      const at = 1_000 + number + empty;
      const slot = encode(u64, BigInt(at));
      host.beginTransaction();
      try {
        executive.initializeBlock(host, {
          // No two blocks have the same hash: some calls take chance from it.
          parentHash: number === 1 ? genesisHash : asHash(hashing.blake2_256(slot)),
          number,
          stateRoot: ZERO_HASH,
          extrinsicsRoot: ZERO_HASH,
          digest: { logs: [{ type: 'PreRuntime', value: [AURA_ENGINE, slot] }] },
        });
      } catch (problem) {
        host.rollbackTransaction();
        number--;
        empty++;
        throw problem;
      }
      host.commitTransaction();
      open = true;
      const inherents = executive.inherentExtrinsics(host, { timstap0: encode(u64, BigInt(at) * 3_000n) });
      for (const inherent of inherents) {
        if (!executive.applyExtrinsic(host, inherent).ok) throw new Error('an inherent was refused');
      }
    }
    return last;
  };
  next();

  return {
    host,
    runtime,
    assembly,
    hashing,
    events,
    next,
    finish,
    /** Digest items of the block under way. */
    logs: () => system.blockDigest(host).logs,
    number: () => number,
    /** What a call comes to, with its error by name, and the events that it made. */
    dispatch(call: RuntimeCall, by: AccountId | Origin = ROOT) {
      const before = events().length;
      const env = new Execution(assembly, host);
      const origin = by instanceof Uint8Array ? signed(by) : by;
      const outcome: DispatchOutcome = env.dispatch(call, origin);
      env.flush();
      return {
        outcome,
        error: outcome.ok ? undefined : assembly.describeError(outcome.error),
        events: events().slice(before),
      };
    },
    env: () => new Execution(assembly, host),
    free: (who: AccountId) => balances.freeBalance(host, who),
    reserved: (who: AccountId) => system.account(host, who).data.reserved,
    frozen: (who: AccountId) => system.account(host, who).data.frozen,
    /** Root of the state, to see whether a failure left anything behind. */
    root: () => Buffer.from(host.storageRoot(1)).toString('hex'),
    balanced,
    close: async () => {
      await database.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
export type World = Awaited<ReturnType<typeof createWorld>>;
