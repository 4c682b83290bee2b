/**
 * Warp sync: to the newest final block by proofs of who finalized, then its state by proofs of ranges. Nothing that a peer
 * says is taken for true here; a peer can only be slow, and then another one is asked.
 */
import type { AuthoritySet } from '../../consensus/grandpa/authorities.ts';
import { JustificationError } from '../../consensus/grandpa/justification.ts';
import { verifyWarp, type WarpFragment, type WarpProof } from '../../consensus/grandpa/warp.ts';
import type { IncomingState, WarpImport } from '../../consensus/grandpa/warp-import.ts';
import type { BlockRef } from '../../node/ports/chain.ts';
import type { Clock, Log } from '../../node/ports/machine.ts';
import type { Hashing, Signatures } from '../../runtime/host.ts';
import type { Header } from '../../runtime/primitives/header.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import type { StateRequest, StateResponse } from '../protocols/state.ts';
import { pause } from './pause.ts';

type Entries = readonly (readonly [key: Uint8Array, value: Uint8Array])[];

export interface WarpPorts {
  readonly finalized: () => BlockRef;
  readonly authoritySet: () => AuthoritySet;
  /** Full nodes that are connected, with the height that they claim. */
  readonly peers: () => readonly { readonly id: PeerId; readonly best: number }[];
  readonly askProof: (peer: PeerId, from: Hash, signal: AbortSignal) => Promise<WarpProof>;
  readonly askState: (peer: PeerId, request: StateRequest, signal: AbortSignal) => Promise<StateResponse>;
  /** Throws `ProofError`. */
  readonly verifyRange: (
    root: Uint8Array,
    proof: readonly Uint8Array[],
    after: Uint8Array | undefined,
  ) => { readonly entries: Entries; readonly complete: boolean };
  readonly receiveState: WarpImport['receiveState'];
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly signatures: Pick<Signatures, 'verifyEd25519'>;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export interface WarpOptions {
  /** Peers that are waited for, at most for `patienceMs` once there is one. */
  readonly wantedPeers?: number;
  readonly patienceMs?: number;
}

const RETRY_MS = 1_000;
const PROGRESS_MS = 5_000;
/** Refusals in a row after which the state is taken for pruned, and a newer block is aimed for. */
const MAX_REFUSALS = 6;

interface Aim {
  readonly header: Header;
  readonly hash: Hash;
}

export class WarpSync {
  readonly #ports: WarpPorts;
  readonly #options: Required<WarpOptions>;
  #set: AuthoritySet;
  readonly #fragments: WarpFragment[] = [];
  #aim: Aim | undefined;
  #turn = 0;
  #toldAt = 0;

  constructor(ports: WarpPorts, options: WarpOptions = {}) {
    this.#ports = ports;
    this.#options = { wantedPeers: 3, patienceMs: 3_000, ...options };
    this.#set = ports.authoritySet();
  }

  /** Height that is aimed for; undefined before it is known. */
  target(): number | undefined {
    return this.#aim?.header.number;
  }

  /** Resolves when the chain stands on a recent final block, or when there is none to leap to: then sync goes block by block. */
  async run(signal: AbortSignal): Promise<void> {
    const { log } = this.#ports;
    await this.#gather(signal);
    while (!signal.aborted) {
      const aim = await this.#prove(signal);
      if (aim === undefined) return;
      log('info', `warp sync: block #${aim.header.number} is final, by ${this.#fragments.length} proofs`);
      const state = await this.#download(aim, signal);
      if (state === undefined) continue;
      const result = await state.leap(this.#set, this.#fragments);
      if (result.type === 'imported') {
        log('info', `warp sync: at #${aim.header.number} with ${state.entries} entries of state`);
        return;
      }
      log('error', `warp sync failed: ${result.type === 'invalid' ? result.reason : result.type}`);
      return;
    }
  }

  async #gather(signal: AbortSignal): Promise<void> {
    const { peers, clock } = this.#ports;
    const { wantedPeers, patienceMs } = this.#options;
    let since: number | undefined;
    while (!signal.aborted) {
      const count = peers().length;
      if (count >= wantedPeers) return;
      if (count > 0) since ??= clock.monotonic();
      if (since !== undefined && clock.monotonic() - since >= patienceMs) return;
      await pause(clock, 100, signal);
    }
  }

  /** Peers take turns, those that claim the most first. */
  async #next(signal: AbortSignal): Promise<PeerId | undefined> {
    for (;;) {
      if (signal.aborted) return undefined;
      const sorted = [...this.#ports.peers()].sort((a, b) => b.best - a.best);
      const chosen = sorted[this.#turn++ % Math.max(1, sorted.length)];
      if (chosen !== undefined) return chosen.id;
      await pause(this.#ports.clock, RETRY_MS, signal);
    }
  }

  /** The newest final block that peers can prove; undefined when none is above the one that this node has. */
  async #prove(signal: AbortSignal): Promise<Aim | undefined> {
    const { askProof, hashing, signatures } = this.#ports;
    let empty = 0;
    for (;;) {
      const peer = await this.#next(signal);
      if (peer === undefined) return undefined;
      const from: BlockRef =
        this.#aim === undefined ? this.#ports.finalized() : { hash: this.#aim.hash, number: this.#aim.header.number };
      try {
        const proof = await askProof(peer, from.hash, signal);
        const { set, last } = verifyWarp(this.#set, from.number, proof, { hashing, signatures });
        this.#set = set;
        if (last !== undefined) {
          this.#aim = last;
          this.#keep(proof.fragments);
        }
        if (!proof.finished) {
          if (last === undefined) throw new NetworkError('MALFORMED', 'a proof that goes nowhere');
          this.#tell(() => `warp sync: at #${last.header.number}, set ${set.setId}`);
          continue;
        }
        if (this.#aim !== undefined) return this.#aim;
        // It may only be that this peer is behind.
        if (++empty >= Math.max(1, this.#ports.peers().length)) return undefined;
      } catch (problem) {
        this.#blame(peer, problem);
        await pause(this.#ports.clock, RETRY_MS, signal);
      }
    }
  }

  /** Blocks that changed the set are kept for others to follow; a newest block that did not is replaced by the next one. */
  #keep(fragments: readonly WarpFragment[]): void {
    const former = this.#fragments.at(-1);
    if (former !== undefined && !this.#set.setChanges.includes(former.header.number)) this.#fragments.pop();
    for (const fragment of fragments) this.#fragments.push(fragment);
  }

  /** Undefined when peers do not have that state any more. */
  async #download(aim: Aim, signal: AbortSignal): Promise<IncomingState | undefined> {
    const { askState, verifyRange, receiveState, log } = this.#ports;
    const sink = receiveState();
    let refusals = 0;
    while (!signal.aborted) {
      const peer = await this.#next(signal);
      if (peer === undefined) return undefined;
      try {
        const request: StateRequest = { block: aim.hash, after: sink.last, noProof: false };
        const response = await askState(peer, request, signal);
        if (response.type !== 'proof') throw new NetworkError('MALFORMED', 'entries without their proof');
        const { entries, complete } = verifyRange(aim.header.stateRoot, response.nodes, sink.last);
        await sink.add(entries);
        refusals = 0;
        this.#tell(
          () => `warp sync: ${sink.entries} entries of the state of #${aim.header.number}, ${share(sink.last)}`,
        );
        if (complete) return sink;
      } catch (problem) {
        this.#blame(peer, problem);
        if (++refusals >= MAX_REFUSALS) {
          log('warn', `the state of block #${aim.header.number} is not to be had: aiming for a newer one`);
          return undefined;
        }
        await pause(this.#ports.clock, RETRY_MS / 4, signal);
      }
    }
    return undefined;
  }

  #blame(peer: PeerId, problem: unknown): void {
    const { charge, log } = this.#ports;
    const code = (problem as { readonly code?: unknown }).code;
    if (problem instanceof NetworkError && problem.code !== 'MALFORMED' && problem.code !== 'TOO_LARGE') {
      charge(peer, problem.code === 'TIMEOUT' ? FEE.slowResponse : FEE.refused, `warp sync: ${problem.message}`);
    } else if (problem instanceof ScaleError || problem instanceof JustificationError || typeof code === 'string') {
      charge(peer, FEE.badResponse, `warp sync: ${(problem as Error).message}`);
    } else log('error', 'warp sync stumbled', { problem: String(problem) });
  }

  #tell(line: () => string): void {
    const now = this.#ports.clock.monotonic();
    if (now - this.#toldAt < PROGRESS_MS) return;
    this.#toldAt = now;
    this.#ports.log('info', line());
  }
}

/** Keys begin with hashes, so where a key lies among all keys says how much is done, about. */
const share = (key: Uint8Array | undefined): string =>
  key === undefined ? '0 %' : `${Math.floor((((key[0] ?? 0) * 256 + (key[1] ?? 0)) / 65_536) * 100)} %`;
