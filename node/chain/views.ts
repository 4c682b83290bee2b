/** What the states of this chain say: read, proven, and asked by calls of the runtime, which leave no trace. */

import type { Hashing, Host, Signatures, Storage } from '../../runtime/host.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import type { Hash, RuntimeVersion } from '../../runtime/primitives/types.ts';
import type { TransactionSource, TransactionValidity } from '../../runtime/primitives/validity.ts';
import { type Runtime, RuntimeApiError } from '../../runtime/runtime.ts';
import type { BlockStore } from '../blocks/block-store.ts';
import { RuntimeCallError, type RuntimeCalls, type StateRanges, type States } from '../ports/chain.ts';
import type { Log } from '../ports/machine.ts';
import type { Difference } from '../state/differences.ts';
import type { StateDatabase, StateRoot } from '../state/state-database.ts';
import { runtimeHost } from './runtime-host.ts';

export interface ViewPorts {
  readonly runtime: Runtime;
  readonly hashing: Hashing;
  readonly signatures: Signatures;
  readonly log: Log;
}

const NOTHING = new Uint8Array();

export class ChainViews<P extends ViewPorts = ViewPorts> implements States, StateRanges, RuntimeCalls {
  readonly blocks: BlockStore;
  protected readonly ports: P;
  protected readonly states: StateDatabase;
  #after: { readonly block: Hash; readonly host: Host } | undefined;

  constructor(ports: P, blocks: BlockStore, states: StateDatabase) {
    this.ports = ports;
    this.blocks = blocks;
    this.states = states;
  }

  at(block: Hash) {
    return this.states.at(block);
  }

  prove(block: Hash, keys: readonly Uint8Array[]): readonly Uint8Array[] | undefined;
  prove(block: Hash, method: string, parameters: Uint8Array): { output: Uint8Array; proof: readonly Uint8Array[] };
  prove(
    block: Hash,
    what: readonly Uint8Array[] | string,
    parameters: Uint8Array = NOTHING,
  ): readonly Uint8Array[] | undefined | { output: Uint8Array; proof: readonly Uint8Array[] } {
    if (typeof what !== 'string') return this.states.prove(block, what);
    const recorder = this.states.recorder();
    const output = this.#run(this.#hostAt(block, recorder), what, parameters);
    return { output, proof: recorder.nodes() };
  }

  proveRange(block: Hash, after: Uint8Array | undefined, maxBytes: number): readonly Uint8Array[] | undefined {
    return this.states.proveRange(block, after, maxBytes);
  }

  closestDescendantMerkleValue(block: Hash, key: Uint8Array): Uint8Array | undefined {
    return this.states.closestDescendant(block, key);
  }

  /** See {@link StateDatabase.differences}. */
  differences(before: Hash, after: Hash, prefix: Uint8Array): Iterable<Difference> | undefined {
    return this.states.differences(before, after, prefix);
  }

  changes(before: Hash, after: Hash): Iterable<Difference> | undefined {
    return this.differences(before, after, NOTHING);
  }

  /** Where another thread finds the state in the database; undefined when it is not here. */
  rootOf(block: Hash): StateRoot | undefined {
    return this.states.rootOf(block);
  }

  call(block: Hash, method: string, parameters: Uint8Array): Uint8Array {
    return this.#run(this.#hostAt(block), method, parameters);
  }

  /** A call of a runtime API that may make unsigned transactions: what it returns, and those. */
  callOffchain(
    block: Hash,
    method: string,
    parameters: Uint8Array,
  ): { readonly output: Uint8Array; readonly transactions: readonly Uint8Array[] } {
    const overlay = this.states.overlay(block);
    if (overlay === undefined) throw unknownBlock(block);
    const { hashing, signatures, log } = this.ports;
    const transactions: Uint8Array[] = [];
    const host = runtimeHost(overlay, hashing, signatures, log, (made) => {
      transactions.push(made);
      return true;
    });
    return { output: this.#run(host, method, parameters), transactions };
  }

  version(block: Hash): RuntimeVersion {
    if (this.blocks.header(block) === undefined) throw unknownBlock(block);
    return this.ports.runtime.version;
  }

  validate(block: Hash, source: TransactionSource['type'], extrinsic: Uint8Array): TransactionValidity {
    return this.ports.runtime.executive.validateNext(this.hostAfter(block), source, extrinsic);
  }

  protected host(storage: Storage): Host {
    const { hashing, signatures, log } = this.ports;
    return runtimeHost(storage, hashing, signatures, log);
  }

  #hostAt(block: Hash, recorder?: ReturnType<StateDatabase['recorder']>): Host {
    const overlay = this.states.overlay(block, recorder);
    if (overlay === undefined) throw unknownBlock(block);
    return this.host(overlay);
  }

  /** For transactions that want into the block after this one; all of them share it, since they leave no trace. */
  protected hostAfter(block: Hash): Host {
    if (this.#after !== undefined && equalBytes(this.#after.block, block)) return this.#after.host;
    const host = this.#hostAt(block);
    this.ports.runtime.executive.enterNext(host, block);
    this.#after = { block, host };
    return host;
  }

  #run(host: Host, method: string, parameters: Uint8Array): Uint8Array {
    try {
      return this.ports.runtime.call(host, method, parameters);
    } catch (problem) {
      if (problem instanceof RuntimeApiError) throw new RuntimeCallError(problem.code, problem.message);
      throw new RuntimeCallError('FAILED', (problem as Error).message);
    }
  }
}

export const unknownBlock = (block: Hash): RuntimeCallError =>
  new RuntimeCallError('UNKNOWN_BLOCK', `the state of block ${toHex(block)} is not here`);
