/**
 * Runs the voter in a node: feeds it events one at a time and carries out its effects in order, so that no vote leaves the
 * machine before the journal has it, and nothing is finalized that the database has not taken.
 */
import type { BlockImport, Blocks, ChainEvents, Keystore, Service } from '../../node/ports/chain.ts';
import type { Clock, Journal, Log } from '../../node/ports/machine.ts';
import type { Signatures } from '../../runtime/host.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { type AuthorityList, voterSetOf } from './authorities.ts';
import { BlocksView } from './chain-view.ts';
import { buildJustification } from './justification.ts';
import {
  blockId,
  decodeGossip,
  encodeGossip,
  equivocationProof,
  type GossipMessage,
  idBytes,
  type NeighbourPacket,
  signingPayload,
} from './messages.ts';
import {
  COST,
  type Effect,
  type Participant,
  type ParticipantEnv,
  type ParticipantEvent,
  type ParticipantStep,
  start,
  step,
  type Timer,
  type Verdict,
} from './participant.ts';
import type { PeerId } from './peers.ts';
import { decodeRecord, encodeRecord } from './record.ts';
import { type RoundStateReport, roundState } from './round-state.ts';
import type { Timing, VoterRecord } from './voter.ts';
import { VoterSet } from './voter-set.ts';
import type { Equivocation, VoterId } from './votes.ts';

const JOURNAL_KEY = 'grandpa/voter';
const KEY_TYPE = 'gran';
/** Events under way; messages beyond are not taken, whoever sends them sends again. */
const MAX_QUEUE = 4_096;
const MAX_QUEUE_PER_PEER = 512;

/** What of GRANDPA goes over the network. Nothing here may throw or wait: a node alone passes functions that do nothing. */
export interface GrandpaNetwork {
  /** To everyone, by gossip; votes and commits are to be passed on by those who accept them, the rest is for direct peers. */
  broadcast(bytes: Uint8Array, type: GossipMessage['type']): void;
  send(peer: PeerId, bytes: Uint8Array): void;
  /** A block that voters know and this node does not (Substrate: `set_sync_fork_request`). */
  wantBlock(block: { readonly hash: Hash; readonly number: number }, from: PeerId): void;
  /** A peer is in a later set: blocks with justifications up to `finalized` are needed, which voting can not bring. */
  behind(peer: PeerId, packet: NeighbourPacket): void;
  /** A peer did not do what was due; the unit is that of verdicts. */
  charge(peer: PeerId, cost: number, reason: string): void;
}

export const noNetwork: GrandpaNetwork = { broadcast() {}, send() {}, wantBlock() {}, behind() {}, charge() {} };

export interface GrandpaPorts {
  readonly blocks: Blocks;
  readonly events: ChainEvents;
  readonly importer: Pick<BlockImport, 'importJustification'>;
  /** The set in charge after the finalized block, as committed with it. */
  readonly authoritySet: () => { readonly setId: number; readonly authorities: AuthorityList };
  readonly keystore: Pick<Keystore, 'has' | 'sign'>;
  readonly signatures: Pick<Signatures, 'verifyEd25519'>;
  readonly journal: Journal;
  readonly network: GrandpaNetwork;
  /** Takes evidence to the chain; `encoded` is Substrate's `EquivocationProof`. */
  readonly reportEquivocation: (proof: Equivocation, encoded: Uint8Array) => Promise<void>;
  readonly clock: Clock;
  /** In [0, 1): spreads commits over time, decides nothing. */
  readonly random: () => number;
  readonly log: Log;
}

export interface GrandpaOptions {
  readonly timing?: Partial<Timing>;
  readonly announceMs?: number;
  /** False on nodes that only follow, whatever keys they hold. */
  readonly voting: boolean;
}

export class GrandpaError extends Error {
  /** `NOT_FINALIZED`: the node refused a justification that its own voter made. `JOURNAL`: a write did not become durable. */
  readonly code: 'NOT_FINALIZED' | 'JOURNAL';
  constructor(code: GrandpaError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

interface Queued {
  readonly event: ParticipantEvent;
  readonly settle: (verdict: Verdict) => void;
}

const ACCEPT: Verdict = { type: 'accept' };
const IGNORE: Verdict = { type: 'ignore' };

export class GrandpaVoter implements Service {
  readonly name = 'grandpa';
  readonly #ports: GrandpaPorts;
  readonly #chain: BlocksView;
  readonly #env: ParticipantEnv;
  readonly #queue: Queued[] = [];
  readonly #queuedOf = new Map<PeerId, number>();
  readonly #timers = new Set<() => void>();
  readonly #peers = new Set<PeerId>();
  #state: Participant | undefined;
  #wake: () => void = () => {};
  #stopped = false;

  constructor(ports: GrandpaPorts, options: GrandpaOptions) {
    this.#ports = ports;
    this.#chain = new BlocksView(ports.blocks);
    const { keystore, signatures, clock } = ports;
    this.#env = {
      chain: this.#chain,
      timing: { gossipMs: 333, idleMs: 10_000, commitMs: 1_000, ...options.timing },
      announceMs: options.announceMs ?? 3_000,
      now: () => clock.monotonic(),
      identity: (voters): VoterId | undefined =>
        options.voting ? voters.voters.find(({ id }) => keystore.has(KEY_TYPE, idBytes(id)))?.id : undefined,
      sign: (voter, kind, target, round, setId) =>
        keystore.sign(KEY_TYPE, idBytes(voter), signingPayload(kind, target, round, setId)),
      verify: (vote, round, setId) =>
        signatures.verifyEd25519(
          vote.signature,
          signingPayload(vote.kind, vote.target, round, setId),
          idBytes(vote.voter),
        ),
    };
  }

  /** Votes and follows until the signal. Rejects when it can not go on without risking a second vote. */
  async run(signal: AbortSignal): Promise<void> {
    const unsubscribe = this.#ports.events.subscribe((event) => {
      if (event.type === 'imported') this.#push({ type: 'chain' });
      const last = event.type === 'finalized' ? event.finalized[event.finalized.length - 1] : undefined;
      if (last !== undefined) {
        this.#push({ type: 'finalized', target: { hash: blockId(last.hash), number: last.number } });
      }
    });
    const stop = (): void => {
      this.#stopped = true;
      this.#wake();
    };
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    try {
      const bytes = await this.#ports.journal.get(JOURNAL_KEY);
      const record = bytes === undefined ? undefined : decodeRecord(bytes);
      await this.#begin(record);
      while (!this.#stopped) {
        const next = this.#queue.shift();
        if (next === undefined) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
          continue;
        }
        const { event } = next;
        if (event.type === 'message') this.#count(event.from, -1);
        next.settle(await this.#take(event));
      }
    } finally {
      this.#stopped = true;
      signal.removeEventListener('abort', stop);
      unsubscribe();
      for (const cancel of this.#timers) cancel();
      this.#timers.clear();
      for (const { settle } of this.#queue.splice(0)) settle(IGNORE);
    }
  }

  /** What a peer said, by whatever protocol. The verdict tells whether to pass it on and what the peer deserves. */
  message(from: PeerId, bytes: Uint8Array): Promise<Verdict> {
    let message: GossipMessage;
    try {
      message = decodeGossip(bytes);
    } catch (error) {
      const reason = `malformed GRANDPA message: ${(error as Error).message}`;
      return Promise.resolve({ type: 'reject', reason, cost: COST.malformed });
    }
    if (this.#stopped || this.#queue.length >= MAX_QUEUE) return Promise.resolve(IGNORE);
    if ((this.#queuedOf.get(from) ?? 0) >= MAX_QUEUE_PER_PEER) return Promise.resolve(IGNORE);
    this.#count(from, 1);
    return new Promise((settle) => {
      this.#push({ type: 'message', from, message }, settle);
    });
  }

  /** A peer that speaks GRANDPA directly: it is told where this node stands. */
  connected(peer: PeerId): void {
    this.#peers.add(peer);
    this.#push({ type: 'connected', peer });
  }

  disconnected(peer: PeerId): void {
    this.#peers.delete(peer);
    this.#push({ type: 'disconnected', peer });
  }

  /** Undefined before the voter has started. */
  roundState(): RoundStateReport | undefined {
    return this.#state === undefined ? undefined : roundState(this.#state.voter);
  }

  #push(event: ParticipantEvent, settle: (verdict: Verdict) => void = () => {}): void {
    if (this.#stopped) {
      settle(IGNORE);
      return;
    }
    // Any number of imports in a row ask for one look at the chain.
    if (event.type === 'chain' && this.#queue.some((each) => each.event.type === 'chain')) return;
    this.#queue.push({ event, settle });
    this.#wake();
  }

  #count(peer: PeerId, by: number): void {
    const count = (this.#queuedOf.get(peer) ?? 0) + by;
    if (count > 0) this.#queuedOf.set(peer, count);
    else this.#queuedOf.delete(peer);
  }

  async #begin(record: VoterRecord | undefined): Promise<void> {
    // Blocks that came after the last flush of the database can be gone after a power cut while the journal knows them.
    if (record !== undefined && !this.#chain.has(record.base)) {
      this.#ports.log('warn', 'the block that the voter stands on is gone: waiting for it', { block: record.base });
      while (!this.#stopped && !this.#chain.has(record.base)) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        for (const { settle } of this.#queue.splice(0)) settle(IGNORE);
        this.#queuedOf.clear();
      }
      if (this.#stopped) return;
    }
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    const { setId, authorities } = this.#ports.authoritySet();
    const first = start(this.#env, {
      setId,
      voters: voterSetOf(authorities),
      finalized: this.#chain.finalized(),
      record,
      recordVoters: record === undefined ? undefined : new VoterSet(record.voters),
    });
    await this.#settle(first);
    for (const peer of this.#peers) await this.#settle(step(this.#env, this.#state!, { type: 'connected', peer }));
  }

  async #take(event: ParticipantEvent): Promise<Verdict> {
    const state = this.#state!;
    if (event.type === 'finalized') {
      const { voter } = state;
      const changes =
        event.target.number > voter.finalized.number ? this.#chain.changes(voter.finalized, event.target).length : 0;
      if (this.#ports.authoritySet().setId > voter.setId + changes) {
        // Warp sync leaps over blocks whose headers are not here, and so over sets: begin anew in the one there is now.
        await this.#begin(undefined);
        return ACCEPT;
      }
    }
    return this.#settle(step(this.#env, state, event));
  }

  async #settle(result: ParticipantStep): Promise<Verdict> {
    this.#state = result.state;
    for (const effect of result.effects) {
      if (this.#stopped) return IGNORE;
      await this.#perform(effect);
    }
    return result.verdict;
  }

  async #perform(effect: Effect): Promise<void> {
    const { network, journal, log } = this.#ports;
    switch (effect.type) {
      case 'persist':
        try {
          await journal.put(JOURNAL_KEY, encodeRecord(effect.record));
        } catch (error) {
          throw new GrandpaError('JOURNAL', `a vote could not be written down: ${(error as Error).message}`);
        }
        return;
      case 'broadcast':
        network.broadcast(encodeGossip(effect.message), effect.message.type);
        return;
      case 'send':
        network.send(effect.peer, encodeGossip(effect.message));
        return;
      case 'setTimer':
        this.#setTimer(effect.timer, effect.afterMs + this.#ports.random() * effect.withinMs);
        return;
      case 'finalize':
        await this.#finalize(effect);
        return;
      case 'equivocation': {
        const { proof } = effect;
        log('warn', 'a voter voted twice', { voter: proof.voter, round: proof.round, setId: proof.setId });
        try {
          await this.#ports.reportEquivocation(proof, encode(equivocationProof, proof));
        } catch (error) {
          log('warn', 'the equivocation could not be reported', { error: (error as Error).message });
        }
        return;
      }
      case 'wantBlock':
        network.wantBlock({ hash: idBytes(effect.target.hash) as Hash, number: effect.target.number }, effect.from);
        return;
      case 'behind':
        network.behind(effect.peer, effect.packet);
        return;
      case 'charge':
        network.charge(effect.peer, effect.cost, effect.reason);
        return;
    }
  }

  #setTimer(timer: Timer, ms: number): void {
    const cancel = this.#ports.clock.after(ms, () => {
      this.#timers.delete(cancel);
      this.#push({ type: 'timer', timer });
    });
    this.#timers.add(cancel);
  }

  async #finalize({ round, commit }: Extract<Effect, { type: 'finalize' }>): Promise<void> {
    const hash = idBytes(commit.target.hash) as Hash;
    const justification = buildJustification(round, commit, (id) => this.#chain.header(id));
    const result = await this.#ports.importer.importJustification(hash, justification);
    if (result.type === 'imported' || result.type === 'known') return;
    const { finalized } = this.#ports.blocks.info();
    // Sync can have gone further meanwhile.
    if (finalized.number > commit.target.number || equalBytes(finalized.hash, hash)) return;
    const why = result.type === 'invalid' ? result.reason : result.type;
    throw new GrandpaError('NOT_FINALIZED', `block ${commit.target.number} could not be finalized: ${why}`);
  }
}
