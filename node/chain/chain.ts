/**
 * The chain of this node: blocks and their states, executed by the runtime. Whatever changes it goes through one queue, and
 * each change is one batch: a block with its state, or a finalization.
 */

import { slotOf } from '../../consensus/aura/slots.ts';
import { sealSignature, verifySeal } from '../../consensus/aura/verify.ts';
import type { Proposal, ProposalRequest } from '../../consensus/aura/worker.ts';
import {
  AuthorityChangeError,
  type AuthoritySet,
  authorityList,
  authoritySetCodec,
  changeIn,
  genesisSet,
  nextSet,
  voterSetOf,
} from '../../consensus/grandpa/authorities.ts';
import { JustificationError, verifyJustification } from '../../consensus/grandpa/justification.ts';
import { justificationCodec } from '../../consensus/grandpa/messages.ts';
import type { WarpFragment } from '../../consensus/grandpa/warp.ts';
import type { IncomingState, WarpImport } from '../../consensus/grandpa/warp-import.ts';
import type { SignatureCheck } from '../../runtime/executive/executive.ts';
import { isHostFault } from '../../runtime/host.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import {
  type Block,
  GRANDPA_ENGINE,
  type Header,
  headerHash,
  type Justifications,
} from '../../runtime/primitives/header.ts';
import { InvalidBlock } from '../../runtime/primitives/invalid-block.ts';
import { decode, encode, fixedBytes, u64, vec } from '../../runtime/primitives/scale/codec.ts';
import { type Hash, ZERO_HASH } from '../../runtime/primitives/types.ts';
import { BlockStore } from '../blocks/block-store.ts';
import type { Genesis } from '../chain-spec/chain-spec.ts';
import type { Verifier } from '../crypto/verifier.ts';
import { type Batch, COLUMN, type Database, DatabaseError } from '../database/database.ts';
import type { BestFirst } from '../pool/best-first.ts';
import type { BlockImport, BlockOrigin, BlockRef, ImportOptions, ImportResult } from '../ports/chain.ts';
import type { Clock } from '../ports/machine.ts';
import type { Overlay } from '../state/overlay.ts';
import { StateDatabase, type StateReceiver } from '../state/state-database.ts';
import { extrinsicsRoot } from '../state/trie.ts';
import { genesisMark, writeGenesis } from './genesis.ts';
import { runtimeHost } from './runtime-host.ts';
import { ChainViews, unknownBlock, type ViewPorts } from './views.ts';

export interface ChainPorts extends ViewPorts {
  readonly database: Database;
  readonly verifier: Pick<Verifier, 'verify'>;
  readonly clock: Clock;
}

export interface ChainOptions {
  readonly pruning: number | 'archive';
  /** Default: all bodies are kept. */
  readonly blocksPruning?: number | 'archive' | undefined;
  readonly genesis: Genesis;
  /** The runtime as WebAssembly, for a genesis that does not bring its own. */
  readonly code: Uint8Array;
}

/** Which genesis a chain was begun with, in short: see {@link genesisMark}. */
const MARK = new TextEncoder().encode('genesis/mark');
const SET = new TextEncoder().encode('grandpa/set');
const publicKeys = vec(fixedBytes(32));
const NOTHING = new Uint8Array();

export class Chain extends ChainViews<ChainPorts> implements BlockImport, WarpImport {
  readonly slotMs: number;
  #set: AuthoritySet;
  #queue: Promise<unknown> = Promise.resolve();
  /** Blocks that this node just made: they need not be executed twice. */
  readonly #made = new Map<string, Overlay>();
  /** How many look at a block that finality may leave behind, by the block in hex. */
  readonly #holds = new Map<string, number>();
  /** Blocks whose signatures are being checked already. */
  readonly #prepared = new WeakMap<Block, Promise<void>>();

  private constructor(ports: ChainPorts, blocks: BlockStore, states: StateDatabase) {
    super(ports, blocks, states);
    const stored = ports.database.get(COLUMN.consensus, SET);
    if (stored === undefined) throw new DatabaseError('CORRUPT', 'the database lacks the set of those who finalize');
    this.#set = decode(authoritySetCodec, stored);
    const { finalized } = blocks.info();
    this.slotMs = Number(decode(u64, this.call(finalized.hash, 'AuraApi_slot_duration', NOTHING)));
  }

  /** Opens the chain, or begins it. Throws {@link DatabaseError} when the database belongs to another one. */
  static async open(ports: ChainPorts, options: ChainOptions): Promise<Chain> {
    const { database, hashing } = ports;
    const states = await StateDatabase.open(database, hashing.blake2_256, { pruning: options.pruning });
    // A chain goes on with the genesis that it began with, also under a node whose runtime would write another one.
    const mark = genesisMark(hashing, options.genesis);
    const begun = database.get(COLUMN.consensus, MARK);
    if (begun === undefined || !equalBytes(begun, mark)) await Chain.#begin(ports, options, states, mark);
    const blocks = await BlockStore.open(database, { pruning: options.blocksPruning ?? 'archive' });
    if (blocks === undefined) throw new DatabaseError('CORRUPT', 'the database lacks its best or finalized block');
    return new Chain(ports, blocks, states);
  }

  /** Writes the first block, or sees that the database has it already. */
  static async #begin(
    ports: ChainPorts,
    options: ChainOptions,
    states: StateDatabase,
    mark: Uint8Array,
  ): Promise<void> {
    const { database, hashing, runtime } = ports;
    const overlay = states.empty();
    const host = runtimeHost(overlay, hashing, ports.signatures, ports.log);
    const genesis = writeGenesis(host, runtime, options.genesis, options.code);
    const hash = headerHash(hashing, genesis);
    const known = database.genesis();
    if (known !== undefined) {
      if (equalBytes(known, hash)) return;
      throw new DatabaseError(
        'OTHER_CHAIN',
        `the database belongs to the chain ${toHex(known)}, the chain spec says ${toHex(hash)}`,
      );
    }
    const batch = database.batch();
    BlockStore.create(database, batch, hash, genesis);
    const committed = states.insert(batch, { hash, number: 0 }, overlay);
    const authorities = decode(authorityList, runtime.call(host, 'GrandpaApi_grandpa_authorities', NOTHING));
    batch.put(COLUMN.consensus, SET, encode(authoritySetCodec, genesisSet(authorities)));
    batch.put(COLUMN.consensus, MARK, mark);
    await batch.commit({ sync: true });
    committed();
  }

  hold(block: Hash): void {
    const name = toHex(block);
    this.#holds.set(name, (this.#holds.get(name) ?? 0) + 1);
  }

  release(block: Hash): void {
    const name = toHex(block);
    const left = (this.#holds.get(name) ?? 0) - 1;
    if (left > 0) this.#holds.set(name, left);
    else this.#holds.delete(name);
  }

  /** Has the signatures of extrinsics for the block after the best one checked by other threads. */
  async preverify(extrinsics: readonly Uint8Array[], parent = this.blocks.info().best.hash): Promise<void> {
    await this.ports.verifier.verify(this.#signaturesOf(extrinsics, parent));
  }

  #signaturesOf(extrinsics: readonly Uint8Array[], parent: Hash): SignatureCheck[] {
    const host = this.hostAfter(parent);
    const { executive } = this.ports.runtime;
    return extrinsics.flatMap((each) => executive.signatureCheck(host, each) ?? []);
  }

  /**
   * Has the signatures of blocks that will be imported checked by other threads, while this one is at those before them. They
   * are read by the state of today: what depends on one that is not here yet is checked when its turn comes.
   */
  prepare(blocks: readonly Block[]): void {
    const { hashing, verifier } = this.ports;
    const { best } = this.blocks.info();
    const authorities = this.auraAuthorities(best) ?? [];
    for (const block of blocks) {
      const seal = sealSignature(block.header, authorities, hashing);
      const checks = this.#signaturesOf(block.extrinsics, best.hash);
      if (seal !== undefined) {
        const { message, signer, signature } = seal;
        checks.push({ signature: { type: 'Sr25519', value: signature }, message, signer });
      }
      const work = verifier.verify(checks).then(() => {});
      // Whoever imports the block hears of it.
      work.catch(() => {});
      this.#prepared.set(block, work);
    }
  }

  authoritySet = (): AuthoritySet => this.#set;

  auraAuthorities(parent: BlockRef): readonly Uint8Array[] | undefined {
    if (!this.states.has(parent.hash)) return undefined;
    return decode(publicKeys, this.call(parent.hash, 'AuraApi_authorities', NOTHING));
  }

  // ---- making blocks -----------------------------------------------------------------------------------------

  /**
   * Fills a block from the pool until it is full or time is up. What turns out invalid is reported to `drop`. A block
   * that cannot be ended is made again without transactions, and those that were in it are dropped: no transaction
   * keeps this node from authoring.
   */
  async propose(request: ProposalRequest, best: BestFirst, drop: (hash: Hash) => void): Promise<Proposal> {
    const taken: Hash[] = [];
    try {
      return await this.#build(request, best, drop, taken);
    } catch (problem) {
      if (isHostFault(problem) || problem instanceof InvalidBlock || taken.length === 0) throw problem;
      this.ports.log('error', 'a block with transactions could not be ended; it is made without them', {
        transactions: taken.length,
        problem: String(problem),
      });
      for (const hash of taken) drop(hash);
      return this.#build(request, undefined, drop, []);
    }
  }

  async #build(
    { parent, preRuntime, timestamp, inherents, deadline, signal }: ProposalRequest,
    best: BestFirst | undefined,
    drop: (hash: Hash) => void,
    taken: Hash[],
  ): Promise<Proposal> {
    const { runtime, clock, log } = this.ports;
    const { executive } = runtime;
    const overlay = this.states.overlay(parent.hash);
    if (overlay === undefined) throw unknownBlock(parent.hash);
    const host = this.host(overlay);
    const start: Header = {
      parentHash: parent.hash,
      number: parent.number + 1,
      stateRoot: ZERO_HASH,
      extrinsicsRoot: ZERO_HASH,
      digest: { logs: [preRuntime] },
    };
    executive.initializeBlock(host, start);
    const extrinsics: Uint8Array[] = [];
    const data = { timstap0: encode(u64, BigInt(timestamp)), ...inherents };
    for (const inherent of executive.inherentExtrinsics(host, data)) {
      const applied = executive.applyExtrinsic(host, inherent);
      if (!applied.ok) throw new Error(`an inherent was refused: ${applied.error.value.type}`);
      extrinsics.push(inherent);
    }
    let turn = clock.monotonic();
    let overfull = 0;
    for (let tx = best?.next(); best !== undefined && tx !== undefined; tx = best.next()) {
      if (signal.aborted || clock.now() >= deadline) break;
      const applied = executive.applyExtrinsic(host, tx.extrinsic);
      if (applied.ok) {
        extrinsics.push(tx.extrinsic);
        taken.push(tx.hash);
      } else if (applied.error.type === 'Invalid' && applied.error.value.type === 'ExhaustsResources') {
        best.markInvalid();
        // Smaller ones may still fit.
        if (++overfull > MAX_OVERFULL) break;
      } else {
        best.markInvalid();
        const { type } = applied.error.value;
        if (applied.problem !== undefined) {
          log('error', 'a transaction threw; it is dropped', { hash: toHex(tx.hash), problem: applied.problem });
        }
        if (type !== 'Future') drop(tx.hash);
      }
      // Others of this thread (clients, votes) must not wait for the whole block.
      if (clock.monotonic() - turn > 10) {
        await new Promise<void>((resolve) => setImmediate(resolve));
        turn = clock.monotonic();
      }
    }
    const header = executive.finalizeBlock(host);
    this.#made.clear();
    this.#made.set(toHex(headerHash(this.ports.hashing, header)), overlay);
    return { header, extrinsics };
  }

  // ---- taking blocks in --------------------------------------------------------------------------------------

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(work);
    this.#queue = done.catch(() => {});
    return done;
  }

  import(block: Block, { origin, justifications, ahead = false }: ImportOptions): Promise<ImportResult> {
    return this.#inTurn(async () => {
      const result = await this.#import(block, origin, ahead);
      const proof = justifications?.find(([engine]) => equalBytes(engine, GRANDPA_ENGINE));
      if (proof !== undefined && (result.type === 'imported' || result.type === 'known')) {
        await this.#justify(headerHash(this.ports.hashing, block.header), proof[1], ahead);
      }
      return result;
    });
  }

  async #import(block: Block, origin: BlockOrigin, ahead: boolean): Promise<ImportResult> {
    const { hashing, signatures, clock, database, runtime } = this.ports;
    const { header } = block;
    const hash = headerHash(hashing, header);
    if (this.blocks.header(hash) !== undefined) return { type: 'known' };
    const parent = this.blocks.header(header.parentHash);
    if (parent === undefined) return { type: 'unknownParent' };
    if (header.number !== parent.number + 1)
      return { type: 'invalid', reason: 'the height is not one above the parent' };
    const parentRef = { hash: header.parentHash, number: parent.number };
    if (!this.blocks.extendsFinalized(parentRef)) return { type: 'abandoned' };
    const authorities = this.auraAuthorities(parentRef);
    if (authorities === undefined) return { type: 'unknownParent' };
    const prepared = await this.#prepared.get(block)?.then(
      () => true,
      () => false,
    );
    const verdict = verifySeal(header, {
      authorities,
      parentSlot: slotOf(parent),
      slotMs: this.slotMs,
      nowMs: clock.now(),
      hashing,
      signatures,
    });
    if (verdict.type === 'future') return { type: 'future' };
    if (verdict.type === 'invalid') return { type: 'invalid', reason: verdict.reason };

    let overlay = this.#made.get(toHex(verdict.preHash));
    this.#made.delete(toHex(verdict.preHash));
    try {
      changeIn(header);
      if (overlay === undefined) {
        if (prepared !== true) await this.preverify(block.extrinsics, header.parentHash);
        overlay = this.states.overlay(header.parentHash)!;
        const host = this.host(overlay);
        const unsealed: Header = { ...header, digest: { logs: header.digest.logs.slice(0, -1) } };
        const own = { timstap0: encode(u64, BigInt(clock.now())) };
        const [problem] = runtime.executive.executeBlock(host, { header: unsealed, extrinsics: block.extrinsics }, own);
        if (problem !== undefined) {
          return problem.fatal ? { type: 'invalid', reason: problem.message } : { type: 'future' };
        }
      }
    } catch (problem) {
      if (problem instanceof InvalidBlock || problem instanceof AuthorityChangeError) {
        return { type: 'invalid', reason: `${problem.code}: ${problem.message}` };
      }
      if (isHostFault(problem)) throw problem;
      // Nothing that a block holds may end its import in another way: whoever sent it hears that it is no good.
      this.ports.log('error', 'a block threw', { number: header.number, hash: toHex(hash), problem: String(problem) });
      return { type: 'invalid', reason: `THREW: ${problem instanceof Error ? problem.message : String(problem)}` };
    }
    const batch = database.batch();
    const stored = this.states.insert(batch, { hash, number: header.number }, overlay);
    const before = this.blocks.info().best.number;
    const pending = this.blocks.insert(batch, hash, block, origin);
    await this.#commit(batch, { sync: origin === 'own', ahead });
    stored();
    pending.apply();
    return { type: 'imported', isNewBest: header.number > before };
  }

  /** Writes a batch; ahead, the next block is executed meanwhile. */
  async #commit(batch: Batch, how: { readonly sync: boolean; readonly ahead: boolean }): Promise<void> {
    const written = batch.commit(how);
    if (!how.ahead || this.ports.database.backlog > MAX_BACKLOG) await written;
    // Whoever runs on the database hears of a failure (see {@link Database.failed}).
    else written.catch(() => {});
  }

  /** See {@link BlockStore.missing}. */
  missing(): BlockRef | undefined {
    return this.blocks.missing();
  }

  receiveState(): IncomingState {
    const state = this.states.receive(1);
    return {
      get entries() {
        return state.entries;
      },
      get last() {
        return state.last;
      },
      add: (entries) => state.add(entries),
      leap: (set, fragments) => this.#inTurn(() => this.#leap(state, set, fragments)),
    };
  }

  async #leap(state: StateReceiver, set: AuthoritySet, fragments: readonly WarpFragment[]): Promise<ImportResult> {
    const { database, hashing } = this.ports;
    const { header } = fragments.at(-1)!;
    if (this.blocks.info().finalized.number > 0) return { type: 'known' };
    if (!equalBytes(state.root(), header.stateRoot)) return { type: 'invalid', reason: 'the state has another root' };
    const target: BlockRef = { hash: headerHash(hashing, header), number: header.number };
    const batch = database.batch();
    const proven = fragments.map((each) => ({
      hash: headerHash(hashing, each.header),
      header: each.header,
      proof: [[GRANDPA_ENGINE, encode(justificationCodec, each.justification)]] as Justifications,
    }));
    const pending = this.blocks.leap(batch, target, header, proven);
    const received = state.finish(batch, target);
    batch.put(COLUMN.consensus, SET, encode(authoritySetCodec, set));
    await batch.commit({ sync: true });
    received();
    this.#set = set;
    pending.apply();
    return { type: 'imported', isNewBest: true };
  }

  /**
   * Takes in blocks that a leap left out, the highest first (see {@link BlockStore.missing}). They are final already, and
   * their proofs, which nobody could check without the sets of the time, are not kept.
   */
  fill(blocks: readonly Block[]): Promise<ImportResult> {
    return this.#inTurn(async () => {
      const { database, hashing } = this.ports;
      const wanted = this.blocks.missing();
      if (wanted === undefined || blocks.length === 0) return { type: 'known' };
      let expected: Hash = wanted.hash;
      const known: (Block & { readonly hash: Hash })[] = [];
      for (const block of blocks) {
        const hash = headerHash(hashing, block.header);
        if (!equalBytes(hash, expected))
          return { type: 'invalid', reason: 'it is not the parent of the block above it' };
        if (!equalBytes(extrinsicsRoot(hashing.blake2_256, block.extrinsics), block.header.extrinsicsRoot)) {
          return { type: 'invalid', reason: 'its extrinsics are others' };
        }
        known.push({ ...block, hash });
        expected = block.header.parentHash;
      }
      const batch = database.batch();
      const pending = this.blocks.fill(batch, known);
      await batch.commit();
      pending.apply();
      return { type: 'imported', isNewBest: false };
    });
  }

  importJustification(hash: Hash, justification: Uint8Array): Promise<ImportResult> {
    return this.#inTurn(() => this.#justify(hash, justification, false));
  }

  /** Votes of this node, which must not be lost, are written after what is on its way (`ahead`). */
  async #justify(hash: Hash, justification: Uint8Array, ahead: boolean): Promise<ImportResult> {
    const { database, hashing, signatures } = this.ports;
    const header = this.blocks.header(hash);
    if (header === undefined) return { type: 'unknownParent' };
    const target: BlockRef = { hash, number: header.number };
    if (header.number <= this.blocks.info().finalized.number) {
      return this.blocks.isFinalized(hash) ? { type: 'known' } : { type: 'invalid', reason: 'the block was abandoned' };
    }
    if (!this.blocks.extendsFinalized(target)) return { type: 'invalid', reason: 'it contradicts a final block' };
    try {
      const named = verifyJustification(justification, {
        setId: this.#set.setId,
        voters: voterSetOf(this.#set.authorities),
        hashing,
        signatures,
      }).target;
      if (named.number !== header.number) return { type: 'invalid', reason: 'it justifies another block' };
    } catch (problem) {
      if (problem instanceof JustificationError) return { type: 'invalid', reason: problem.message };
      throw problem;
    }
    const batch: Batch = database.batch();
    const { pruning } = this.states;
    const made = this.blocks.finalize(batch, target, [[GRANDPA_ENGINE, justification]], {
      isHeld: (block) => this.#holds.has(toHex(block)),
      above: pruning === 'archive' ? 0 : target.number - pruning,
    });
    const states = this.states.finalize(batch, made.finalized, made.removed, (number) => this.blocks.hashOf(number));
    let set = this.#set;
    for (const block of made.finalized) {
      const change = changeIn(this.blocks.header(block.hash)!);
      if (change !== undefined) set = nextSet(set, block.number, change);
    }
    if (set !== this.#set) batch.put(COLUMN.consensus, SET, encode(authoritySetCodec, set));
    await this.#commit(batch, { sync: !ahead, ahead });
    this.#set = set;
    states();
    made.apply();
    return { type: 'imported', isNewBest: false };
  }
}

/** Operations that may wait to be written while blocks are imported. */
const MAX_BACKLOG = 10_000;
/** Transactions that do not fit before the block counts as full. */
const MAX_OVERFULL = 100;
