/** The chain itself: database, blocks and states, keys, the pool and its journal. */
import { join } from 'node:path';
import { keystoreOf, type OwnKeystore } from '../base-path.ts';
import type { BlockStore } from '../blocks/block-store.ts';
import { Chain } from '../chain/chain.ts';
import { newRuntime } from '../chain/genesis.ts';
import { Verifier } from '../crypto/verifier.ts';
import { Database } from '../database/database.ts';
import { journaling, TransactionJournal } from '../pool/journal.ts';
import { TransactionPool } from '../pool/pool.ts';
import type { Service } from '../ports/chain.ts';
import { Readers } from '../reading/readers.ts';
import { aborted } from '../services/run-all.ts';
import { runtimeCode } from '../wasm-builder/cache.ts';
import type { Ground } from './ground.ts';

/** Keys of a validator, in the order of the runtime's `SessionKeys`. */
export const SESSION_KEYS = ['aura', 'gran'] as const;
/** The key of the account that shows faults and is paid for them. */
export const WATCHER_KEY = 'wtch';

export interface ChainPart {
  readonly database: Database;
  readonly chain: Chain;
  readonly reads: Readers;
  readonly blocks: BlockStore;
  readonly keystore: OwnKeystore;
  readonly pool: TransactionPool;
  /** Whether this node authors and votes. */
  readonly validator: boolean;
  readonly services: readonly Service[];
}

/** Throws `DatabaseError`, `KeystoreError` and what a database of another chain is refused with. */
export async function openChain(ground: Ground): Promise<ChainPart> {
  const { options, directory, hashing, signatures, clock, open } = ground;
  const { spec, log, authority, validator = authority !== undefined } = options;
  const database = await Database.open(join(directory, 'db'));
  open.defer(() => database.close());
  const verifier = new Verifier({ signatures, hashing });
  open.defer(() => verifier.close());
  const code = await runtimeCode(() =>
    log('info', 'building the runtime as WebAssembly, once: this takes some seconds'),
  );
  const chain = await Chain.open(
    { database, runtime: newRuntime(), hashing, signatures, verifier, clock, log },
    { pruning: options.statePruning, blocksPruning: options.blocksPruning, genesis: spec.genesis, code },
  );
  const { blocks } = chain;
  const reads = new Readers({
    path: database.path,
    rootOf: (block) => chain.rootOf(block),
    written: () => database.written(),
    log,
  });
  open.defer(() => reads.close());

  const keystore = keystoreOf(options, directory, hashing);
  open.defer(() => keystore.close?.());
  if (authority !== undefined) for (const type of [...SESSION_KEYS, WATCHER_KEY]) keystore.hold(type, authority);

  const submitted =
    options.basePath === undefined ? undefined : new TransactionJournal(join(directory, 'transactions'));
  if (submitted !== undefined) open.defer(() => submitted.close());
  const pool = new TransactionPool({
    blocks,
    events: blocks,
    validate: (block, source, extrinsic) => chain.validate(block, source, extrinsic),
    preverify: (extrinsics) => chain.preverify(extrinsics),
    ...(submitted !== undefined && { remember: (extrinsic: Uint8Array) => submitted.append(extrinsic) }),
    isAuthority: () => validator,
    hashing,
    clock,
    log,
  });
  return {
    database,
    chain,
    reads,
    blocks,
    keystore,
    pool,
    validator,
    services: [
      { name: 'pool', run: (until) => pool.run(until) },
      ...(submitted === undefined ? [] : [journaling(submitted, pool, blocks, log)]),
      { name: 'database', run: (until) => Promise.race([database.failed, aborted(until)]) },
    ],
  };
}
