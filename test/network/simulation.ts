/**
 * GRANDPA in a simulated network: a virtual clock, no sockets, and everything that can go wrong decided by a seed. The voters
 * are the product's own (`consensus/grandpa/participant.ts`); only signatures are a stand-in, since what is tested here is the
 * protocol. `node test/network/simulation.ts --runs 2000`, or `--seed N --trace` to see one run again.
 */
import { bestHead } from '../../consensus/fork-choice.ts';
import type { GossipMessage } from '../../consensus/grandpa/messages.ts';
import {
  type Effect,
  type Participant,
  type ParticipantEnv,
  type ParticipantEvent,
  start,
  step,
  type Timer,
} from '../../consensus/grandpa/participant.ts';
import type { ChainView, SetChange, VoterRecord } from '../../consensus/grandpa/voter.ts';
import { VoterSet } from '../../consensus/grandpa/voter-set.ts';
import type { BlockId, SignedVote, Target, VoteKind, VoterId } from '../../consensus/grandpa/votes.ts';

export interface SimulationOptions {
  readonly trace?: (line: string) => void;
  /** Breaks the protocol on purpose: the checks must notice. */
  readonly sabotage?: 'forgetVotes' | 'weakThreshold';
}

export interface SimulationResult {
  readonly seed: number;
  readonly nodes: number;
  readonly byzantine: number;
  readonly finalized: number;
  readonly sets: number;
  readonly crashes: number;
  readonly steps: number;
  readonly equivocations: number;
  /** Virtual time from the network being whole again to every node finalizing a block made since. */
  readonly recoveryMs: number;
  readonly failure: string | undefined;
}

/** mulberry32: small, seeded, and good enough to decide who is unlucky. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

interface Job {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** A binary heap of jobs by time, then by order of scheduling. */
class Agenda {
  readonly #jobs: Job[] = [];
  #order = 0;

  add(at: number, run: () => void): void {
    const jobs = this.#jobs;
    jobs.push({ at, order: this.#order++, run });
    for (let i = jobs.length - 1; i > 0; ) {
      const parent = (i - 1) >> 1;
      if (!this.#before(i, parent)) break;
      [jobs[i], jobs[parent]] = [jobs[parent]!, jobs[i]!];
      i = parent;
    }
  }

  next(): Job | undefined {
    const jobs = this.#jobs;
    const first = jobs[0];
    const last = jobs.pop();
    if (first === undefined || last === first) return first;
    jobs[0] = last!;
    for (let i = 0; ; ) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2]) if (child < jobs.length && this.#before(child, least)) least = child;
      if (least === i) return first;
      [jobs[i], jobs[least]] = [jobs[least]!, jobs[i]!];
      i = least;
    }
  }

  #before(a: number, b: number): boolean {
    const [x, y] = [this.#jobs[a]!, this.#jobs[b]!];
    return x.at < y.at || (x.at === y.at && x.order < y.order);
  }
}

interface Block extends Target {
  readonly parent: Block | undefined;
  readonly voters: VoterSet | undefined;
  readonly madeAt: number;
}

const ancestorAt = (block: Block, number: number): Block | undefined => {
  let at: Block | undefined = block;
  while (at !== undefined && at.number > number) at = at.parent;
  return at;
};
const isAncestor = (base: Target, block: Block): boolean => ancestorAt(block, base.number)?.hash === base.hash;

/** One node's database: blocks in the order of their arrival, and what is final. Survives crashes. */
class NodeChain implements ChainView {
  readonly known = new Map<BlockId, Block>();
  heads: Block[] = [];
  finalized: Block;
  best: Block;
  set: { setId: number; voters: VoterSet };

  constructor(genesis: Block, voters: VoterSet) {
    this.known.set(genesis.hash, genesis);
    this.heads.push(genesis);
    this.finalized = genesis;
    this.best = genesis;
    this.set = { setId: 0, voters };
  }

  add(block: Block): void {
    if (this.known.has(block.hash)) return;
    this.known.set(block.hash, block);
    this.heads = [...this.heads.filter((each) => each !== block.parent), block];
    this.choose();
  }

  choose(): void {
    const head = bestHead(this.heads, this.best, (each) => isAncestor(this.finalized, this.known.get(each.hash)!));
    this.best = isAncestor(this.finalized, this.best) ? this.known.get(head.hash)! : this.longest(this.finalized)!;
  }

  longest(base: Target): Block | undefined {
    const block = this.known.get(base.hash);
    if (block === undefined) return undefined;
    const head = bestHead(this.heads, block, (each) => isAncestor(block, this.known.get(each.hash)!));
    return this.known.get(head.hash);
  }

  finalize(block: Block): void {
    for (const change of this.changes(this.finalized, block)) {
      this.set = { setId: this.set.setId + 1, voters: change.voters };
    }
    this.finalized = block;
    this.choose();
  }

  has(block: Target): boolean {
    return this.known.get(block.hash)?.number === block.number;
  }

  includes(base: Target, block: Target): boolean {
    const found = this.known.get(block.hash);
    return found !== undefined && found.number === block.number && this.has(base) && isAncestor(base, found);
  }

  between(base: Target, block: Target): readonly BlockId[] | undefined {
    if (!this.includes(base, block)) return undefined;
    const out: BlockId[] = [];
    for (let at = this.known.get(block.hash)!.parent; at !== undefined && at.number > base.number; at = at.parent) {
      out.push(at.hash);
    }
    return out;
  }

  target(base: Target): Target | undefined {
    const head = this.includes(base, this.best) ? this.best : this.longest(base);
    if (head === undefined) return undefined;
    const [change] = this.changes(this.finalized, head);
    return change === undefined || change.at.number >= head.number
      ? head
      : change.at.number < base.number
        ? base
        : change.at;
  }

  changes(base: Target, block: Target): readonly SetChange[] {
    const out: SetChange[] = [];
    let at = this.known.get(block.hash);
    for (; at !== undefined && at.number > base.number; at = at.parent) {
      if (at.voters !== undefined) out.push({ at, voters: at.voters });
    }
    return out.reverse();
  }
}

interface Node {
  readonly index: number;
  readonly id: VoterId;
  readonly name: string;
  readonly chain: NodeChain;
  readonly byzantine: boolean;
  /** The journal: all that is left of the voter after a crash. */
  record: VoterRecord | undefined;
  participant: Participant | undefined;
  /** Counts restarts: timers of an earlier life do not ring. */
  life: number;
  env: ParticipantEnv;
}

/** Of requests for a block. */
const LOST_REQUESTS = 0.3;
const SLOT_MS = 3_000;
/** Blocks and finality are expected back within this time once the network is whole. */
const RECOVERY_MS = 30_000;

export function simulate(seed: number, options: SimulationOptions = {}): SimulationResult {
  return new Simulation(seed, options).run();
}

class SimulationFailure extends Error {}

class Simulation {
  readonly seed: number;
  readonly #options: SimulationOptions;
  readonly #random: () => number;
  readonly #agenda = new Agenda();
  readonly #nodes: Node[] = [];
  readonly #byId = new Map<string, Node>();
  readonly #signed = new WeakMap<Uint8Array, string>();
  readonly #cast = new Map<string, BlockId>();
  /** By height: the first block anyone honest finalized there. */
  readonly #final = new Map<number, Block>();
  #now = 0;
  #groups: readonly number[] = [];
  #whole = true;
  #blocks = 0;
  #crashes = 0;
  #steps = 0;
  #equivocations = 0;
  readonly #maxDelay: number;
  readonly #duplicates: number;
  readonly #gossipMs: number;
  readonly #changesSets: boolean;

  constructor(seed: number, options: SimulationOptions) {
    this.seed = seed;
    this.#options = options;
    this.#random = random(seed * 2654435761 + 1);
    const size = 4 + Math.floor(this.#random() * this.#random() * 28);
    const faulty = Math.floor(this.#random() * (Math.floor((size - 1) / 3) + 1));
    this.#maxDelay = this.#pick([20, 100, 300, 1000]);
    this.#duplicates = this.#pick([0, 0.05, 0.3]);
    this.#gossipMs = this.#pick([100, 333]);
    this.#changesSets = this.#random() < 0.5;
    const ids = Array.from({ length: size }, (_, i) => `v${String(i).padStart(2, '0')}` as VoterId);
    const weighted = this.#random() < 0.2;
    const voters = this.#setOf(
      ids.map((id, i) => ({ id, faulty: i < faulty })),
      weighted,
    );
    const genesis: Block = { hash: 'genesis' as BlockId, number: 0, parent: undefined, voters: undefined, madeAt: 0 };
    this.#final.set(0, genesis);
    ids.forEach((id, index) => {
      const chain = new NodeChain(genesis, voters);
      const node: Node = {
        index,
        id,
        name: `${id}${index < faulty ? '*' : ''}`,
        chain,
        byzantine: index < faulty,
        record: undefined,
        participant: undefined,
        life: 0,
        env: this.#envFor(id, chain),
      };
      this.#nodes.push(node);
      this.#byId.set(id, node);
    });
  }

  run(): SimulationResult {
    let failure: string | undefined;
    let recoveryMs = 0;
    try {
      this.#groups = this.#nodes.map(() => 0);
      for (const node of this.#nodes) this.#boot(node);
      this.#agenda.add(SLOT_MS, () => this.#slot(1));
      this.#until(9_000 + Math.floor(this.#random() * 6_000));
      const troubles = 1 + Math.floor(this.#random() * 2);
      for (let i = 0; i < troubles; i++) {
        this.#trouble(10_000 + Math.floor(this.#random() * 20_000));
        recoveryMs = Math.max(recoveryMs, this.#recovery());
      }
    } catch (error) {
      if (!(error instanceof SimulationFailure)) throw error;
      failure = error.message;
    }
    return {
      seed: this.seed,
      nodes: this.#nodes.length,
      byzantine: this.#nodes.filter((each) => each.byzantine).length,
      finalized: Math.min(...this.#honest().map((each) => each.chain.finalized.number)),
      sets: Math.max(...this.#nodes.map((each) => each.chain.set.setId)),
      crashes: this.#crashes,
      steps: this.#steps,
      equivocations: this.#equivocations,
      recoveryMs,
      failure,
    };
  }

  #honest(): Node[] {
    return this.#nodes.filter((each) => !each.byzantine);
  }

  #fail(what: string): never {
    this.#note(() => `FAILURE: ${what}`);
    throw new SimulationFailure(what);
  }

  #note(line: () => string): void {
    this.#options.trace?.(`${String(this.#now).padStart(7)} ${line()}`);
  }

  #pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random() * from.length)]!;
  }

  /** A set in which the faulty weigh at most f. */
  #setOf(members: readonly { id: VoterId; faulty: boolean }[], weighted: boolean): VoterSet {
    const weights = members.map(
      ({ id, faulty }) => [id, faulty || !weighted ? 1 : 1 + Math.floor(this.#random() * 3)] as const,
    );
    return this.#weaken(new VoterSet(weights));
  }

  #weaken(voters: VoterSet): VoterSet {
    if (this.#options.sabotage !== 'weakThreshold') return voters;
    return Object.defineProperty(voters, 'threshold', { value: Math.ceil(voters.totalWeight * 0.4) });
  }

  #envFor(id: VoterId, chain: NodeChain): ParticipantEnv {
    const payload = (voter: VoterId, kind: VoteKind, target: Target, round: number, setId: number): string =>
      `${voter} ${kind} ${target.hash} ${target.number} ${round} ${setId}`;
    return {
      chain,
      timing: { gossipMs: this.#gossipMs, idleMs: 6_000, commitMs: 1_000 },
      announceMs: 3_000,
      now: () => this.#now,
      identity: (voters) => (voters.has(id) ? id : undefined),
      sign: (voter, kind, target, round, setId) => {
        if (voter !== id) return undefined;
        const signature = new Uint8Array(1);
        this.#signed.set(signature, payload(voter, kind, target, round, setId));
        return signature;
      },
      verify: (vote, round, setId) =>
        this.#signed.get(vote.signature) === payload(vote.voter, vote.kind, vote.target, round, setId),
    };
  }

  #until(time: number): void {
    for (;;) {
      const job = this.#agenda.next();
      if (job === undefined) return;
      if (job.at > time) {
        this.#agenda.add(job.at, job.run);
        this.#now = time;
        return;
      }
      this.#now = job.at;
      job.run();
    }
  }

  #boot(node: Node): void {
    const { record, chain } = node;
    node.life++;
    const first = start(node.env, {
      setId: chain.set.setId,
      voters: chain.set.voters,
      finalized: chain.finalized,
      record,
      recordVoters: record === undefined ? undefined : this.#weaken(new VoterSet(record.voters)),
    });
    node.participant = first.state;
    this.#note(
      () => `${node.name} starts in set ${first.state.voter.setId} round ${first.state.voter.best.votes.number}`,
    );
    this.#perform(node, first.effects);
    for (const other of this.#nodes) {
      if (other === node || other.participant === undefined) continue;
      this.#deliver(node, { type: 'connected', peer: other.id });
      this.#deliver(other, { type: 'connected', peer: node.id });
      this.#offer(other, node, other.chain.best);
    }
  }

  #crash(node: Node): void {
    if (node.participant === undefined) return;
    this.#note(() => `${node.name} crashes`);
    this.#crashes++;
    node.participant = undefined;
    node.life++;
    for (const other of this.#nodes) this.#deliver(other, { type: 'disconnected', peer: node.id });
  }

  #deliver(node: Node, event: ParticipantEvent): void {
    if (node.participant === undefined) return;
    this.#steps++;
    const result = step(node.env, node.participant, event);
    node.participant = result.state;
    if (event.type === 'message' && result.verdict.type === 'reject') {
      const { reason } = result.verdict;
      const sender = this.#byId.get(event.from)!;
      // What others ask for and what was asked in an earlier life is no lie.
      if (!sender.byzantine && !/asked/.test(reason))
        this.#fail(`${sender.name} is honest and was refused by ${node.name}: ${reason}`);
    }
    this.#perform(node, result.effects);
  }

  /** Carries out effects in order; a crash can come between any two of them. */
  #perform(node: Node, effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (this.#troubled && !node.byzantine && this.#random() < this.#crashRate) {
        this.#crash(node);
        return;
      }
      switch (effect.type) {
        case 'persist':
          node.record = this.#options.sabotage === 'forgetVotes' ? { ...effect.record, own: [] } : effect.record;
          break;
        case 'broadcast':
          this.#broadcast(node, effect.message);
          break;
        case 'send':
          this.#send(node, this.#byId.get(effect.peer)!, effect.message);
          break;
        case 'setTimer':
          this.#setTimer(node, effect.timer, effect.afterMs + Math.floor(this.#random() * effect.withinMs));
          break;
        case 'finalize':
          this.#finalize(node, effect.commit.target);
          break;
        case 'equivocation': {
          this.#equivocations++;
          const offender = this.#byId.get(effect.proof.voter)!;
          if (!offender.byzantine)
            this.#fail(`${offender.name} is honest and voted twice in round ${effect.proof.round}`);
          break;
        }
        case 'wantBlock': {
          const from = this.#byId.get(effect.from)!;
          // Requests fail: whoever was asked may be gone, or too slow.
          if (this.#random() < LOST_REQUESTS) break;
          this.#offer(from, node, from.chain.known.get(effect.target.hash) ?? from.chain.best);
          break;
        }
        case 'behind': {
          const from = this.#byId.get(effect.peer)!;
          this.#offer(from, node, from.chain.finalized, true);
          break;
        }
      }
    }
  }

  #setTimer(node: Node, timer: Timer, afterMs: number): void {
    const { life } = node;
    this.#agenda.add(this.#now + afterMs, () => {
      if (node.life === life) this.#deliver(node, { type: 'timer', timer });
    });
  }

  #connected(a: Node, b: Node): boolean {
    return this.#groups[a.index] === this.#groups[b.index];
  }

  #delay(): number {
    const slow = !this.#whole && this.#random() < 0.1 ? 10 : 1;
    return 1 + Math.floor(this.#random() * this.#maxDelay * slow);
  }

  #send(from: Node, to: Node, message: GossipMessage): void {
    if (from === to || !this.#connected(from, to)) return;
    const copies = !this.#whole && this.#random() < this.#duplicates ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      this.#agenda.add(this.#now + this.#delay(), () => this.#deliver(to, { type: 'message', from: from.id, message }));
    }
  }

  #broadcast(from: Node, message: GossipMessage): void {
    if (from.byzantine && message.type === 'vote') {
      this.#lie(from, message);
      return;
    }
    if (message.type === 'vote') {
      const { vote, round, setId } = message;
      const key = `${setId} ${round} ${vote.kind} ${vote.voter}`;
      const before = this.#cast.get(key);
      if (before !== undefined && before !== vote.target.hash) this.#fail(`${from.name} voted twice: ${key}`);
      this.#cast.set(key, vote.target.hash);
      this.#note(() => `${from.name} ${vote.kind}s ${vote.target.hash} in ${setId}/${round}`);
    }
    for (const to of this.#nodes) this.#send(from, to, message);
  }

  /** What a faulty voter makes of a vote that it should cast. */
  #lie(node: Node, message: Extract<GossipMessage, { type: 'vote' }>): void {
    const { round, setId, vote } = message;
    const known = [...node.chain.known.values()];
    const signed = (target: Target, kind: VoteKind = vote.kind): GossipMessage => {
      const signature = node.env.sign(node.id, kind, target, round, setId)!;
      return { type: 'vote', round, setId, vote: { kind, target, voter: node.id, signature } as SignedVote };
    };
    const fake = (): Target => ({
      hash: `fake${Math.floor(this.#random() * 1000)}` as BlockId,
      number: vote.target.number + 1,
    });
    const other = (): Target => this.#pick(known.slice(-12));
    const behaviour = Math.floor(this.#random() * 6);
    for (const to of this.#nodes) {
      switch (behaviour) {
        case 0: // Says nothing.
          break;
        case 1: // Tells each something else.
          this.#send(node, to, this.#random() < 0.5 ? message : signed(other()));
          break;
        case 2: // Tells only some.
          if (this.#random() < 0.4) this.#send(node, to, message);
          break;
        case 3: // Votes for what nobody has.
          this.#send(node, to, signed(fake()));
          break;
        case 4: // Tells everyone many things, some of them in both phases.
          for (let i = 0; i < 4; i++)
            this.#send(node, to, signed(other(), this.#pick(['prevote', 'precommit', 'propose'])));
          break;
        default:
          this.#send(node, to, message);
      }
    }
    if (this.#random() < 0.2) this.#nuisance(node, round, setId);
  }

  /** Things that are simply false: forged votes, hollow commits and catch-ups, absurd positions. */
  #nuisance(node: Node, round: number, setId: number): void {
    const victim = this.#pick(this.#nodes);
    const target = this.#pick([...node.chain.known.values()]);
    const someone = this.#pick(this.#nodes).id;
    const forged = { kind: 'precommit', target, voter: someone, signature: new Uint8Array(1) } as const;
    const messages: GossipMessage[] = [
      { type: 'vote', round, setId, vote: forged },
      {
        type: 'commit',
        round,
        setId,
        commit: { target, precommits: this.#nodes.map(({ id }) => ({ ...forged, voter: id })) },
      },
      { type: 'neighbour', round: round + 1000, setId, finalized: target.number },
      { type: 'neighbour', round: 1, setId: setId + 5, finalized: 0 },
      { type: 'catchUp', setId, catchUp: { round: round + 1000, base: target, prevotes: [], precommits: [forged] } },
      { type: 'catchUpRequest', round: Math.max(1, round - 1), setId },
    ];
    this.#send(node, victim, this.#pick(messages));
  }

  #finalize(node: Node, target: Target): void {
    const block = node.chain.known.get(target.hash);
    if (block === undefined) this.#fail(`${node.name} finalized the unknown ${target.hash}`);
    if (!node.byzantine) {
      for (let at: Block | undefined = block; at !== undefined; at = at.parent) {
        const before = this.#final.get(at.number);
        if (before === at) break;
        if (before !== undefined) this.#fail(`${node.name} finalized ${at.hash} where ${before.hash} is final`);
        this.#final.set(at.number, at);
      }
    }
    if (block.number <= node.chain.finalized.number) return;
    this.#note(() => `${node.name} finalizes ${block.hash}`);
    node.chain.finalize(block);
  }

  /** One node gives a block with all its ancestors to another; `final` stands for justifications that sync brings along. */
  #offer(from: Node, to: Node, block: Block, final = false): void {
    if (from === to || !this.#connected(from, to)) return;
    const shown = from.chain.finalized;
    this.#agenda.add(this.#now + this.#delay(), () => {
      if (to.participant === undefined) return;
      const missing: Block[] = [];
      for (let at: Block | undefined = block; at !== undefined && !to.chain.known.has(at.hash); at = at.parent)
        missing.push(at);
      for (const each of missing.reverse()) to.chain.add(each);
      if (missing.length > 0) this.#deliver(to, { type: 'chain' });
      if (!final || from.byzantine || shown.number <= to.chain.finalized.number) return;
      this.#finalize(to, shown);
      this.#deliver(to, { type: 'finalized', target: shown });
    });
  }

  #slot(number: number): void {
    this.#agenda.add(this.#now + SLOT_MS, () => this.#slot(number + 1));
    const author = this.#nodes[number % this.#nodes.length]!;
    if (author.participant === undefined) return;
    const blocks = [this.#block(author, author.chain.best)];
    // A faulty author makes two blocks and shows them to different nodes.
    if (author.byzantine && this.#random() < 0.5) blocks.push(this.#block(author, this.#pick(author.chain.heads)));
    for (const block of blocks) author.chain.add(block);
    this.#deliver(author, { type: 'chain' });
    for (const to of this.#nodes) {
      const block = this.#pick(blocks);
      if (!author.byzantine || this.#random() < 0.8) this.#offer(author, to, block);
    }
  }

  #block(author: Node, parent: Block): Block {
    const hash = `b${parent.number + 1}.${author.index}.${this.#blocks++}` as BlockId;
    const voters = this.#changesSets && this.#random() < 0.15 ? this.#nextVoters() : undefined;
    this.#note(
      () =>
        `${author.name} makes ${hash} on ${parent.hash}${voters === undefined ? '' : ` for ${voters.size} new voters`}`,
    );
    return { hash, number: parent.number + 1, parent, voters, madeAt: this.#now };
  }

  #nextVoters(): VoterSet {
    const honest = this.#honest().filter(() => this.#random() < 0.8);
    if (honest.length < 3) honest.splice(0, honest.length, ...this.#honest());
    const faulty = this.#nodes.filter((each) => each.byzantine).slice(0, Math.floor((honest.length - 1) / 2));
    return this.#setOf(
      [...honest, ...faulty].map((each) => ({ id: each.id, faulty: each.byzantine })),
      this.#random() < 0.2,
    );
  }

  #troubled = false;
  #crashRate = 0;

  /** A time of partitions, slow and doubled messages, and crashes. */
  #trouble(lastsMs: number): void {
    const end = this.#now + lastsMs;
    this.#troubled = true;
    this.#whole = false;
    this.#crashRate = this.#pick([0, 0.0005, 0.005]);
    const partitions = this.#random() < 0.7;
    const blackout = this.#random() < 0.1;
    this.#note(() => `trouble until ${end}, crash rate ${this.#crashRate}, partitions ${partitions}`);
    while (this.#now < end) {
      if (partitions) {
        const parts = 1 + Math.floor(this.#random() * 3);
        this.#groups = this.#nodes.map(() => Math.floor(this.#random() * parts));
        this.#note(() => `groups ${this.#groups.join('')}`);
      }
      if (blackout) for (const node of this.#honest()) this.#crash(node);
      this.#until(Math.min(end, this.#now + 1_000 + Math.floor(this.#random() * 8_000)));
      for (const node of this.#nodes) {
        if (node.participant === undefined && this.#random() < 0.7) this.#boot(node);
      }
    }
    this.#troubled = false;
    this.#whole = true;
    this.#groups = this.#nodes.map(() => 0);
  }

  /** The network is whole: every honest node must come to finalize a block that was made since. */
  #recovery(): number {
    const since = this.#now;
    this.#note(() => 'the network is whole');
    for (const node of this.#nodes) if (node.participant === undefined) this.#boot(node);
    for (const a of this.#nodes) for (const b of this.#nodes) this.#offer(a, b, a.chain.best, true);
    const recovered = (): boolean => this.#honest().every((node) => node.chain.finalized.madeAt > since);
    while (!recovered()) {
      if (this.#now - since > RECOVERY_MS) {
        const lag = this.#honest()
          .filter((node) => node.chain.finalized.madeAt <= since)
          .map((node) => {
            const voter = node.participant?.voter;
            return `${node.name}@${voter?.setId}/${voter?.best.votes.number}:${voter?.best.stage} final ${node.chain.finalized.hash} best ${node.chain.best.hash}`;
          });
        this.#fail(`no progress ${RECOVERY_MS} ms after the network was whole: ${lag.join(', ')}`);
      }
      this.#until(this.#now + 250);
    }
    const took = this.#now - since;
    this.#until(this.#now + 6_000);
    return took;
  }
}

function main(argv: readonly string[]): void {
  const option = (name: string, otherwise: number): number => {
    const at = argv.indexOf(`--${name}`);
    return at < 0 ? otherwise : Number(argv[at + 1]);
  };
  const from = option('seed', 1);
  const runs = option('runs', argv.includes('--seed') ? 1 : 2_000);
  const options: SimulationOptions = argv.includes('--trace') ? { trace: (line) => console.log(line) } : {};
  const started = performance.now();
  const results: SimulationResult[] = [];
  for (let seed = from; seed < from + runs; seed++) {
    const result = simulate(seed, options);
    results.push(result);
    if (result.failure === undefined) continue;
    console.error(`seed ${seed} (${result.nodes} nodes, ${result.byzantine} faulty): ${result.failure}`);
    if (!argv.includes('--trace')) {
      const lines: string[] = [];
      simulate(seed, { trace: (line) => lines.push(line) });
      console.error(lines.slice(-40).join('\n'));
      console.error(`replay: node test/network/simulation.ts --seed ${seed} --trace`);
    }
    if (!argv.includes('--keep-going')) {
      process.exitCode = 1;
      return;
    }
  }
  const sum = (value: (result: SimulationResult) => number): number =>
    results.reduce((total, each) => total + value(each), 0);
  const recovery = results.map((each) => each.recoveryMs).sort((a, b) => a - b);
  const at = (share: number): number => recovery[Math.min(recovery.length - 1, Math.floor(recovery.length * share))]!;
  const failed = results.filter((each) => each.failure !== undefined).length;
  console.log(
    JSON.stringify({
      runs: results.length,
      failed,
      seconds: Math.round((performance.now() - started) / 100) / 10,
      steps: sum((each) => each.steps),
      voters: [Math.min(...results.map((each) => each.nodes)), Math.max(...results.map((each) => each.nodes))],
      withFaulty: results.filter((each) => each.byzantine > 0).length,
      crashes: sum((each) => each.crashes),
      setChanges: sum((each) => each.sets),
      equivocationsSeen: sum((each) => each.equivocations),
      finalizedBlocks: sum((each) => each.finalized),
      recoveryMs: { median: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) },
    }),
  );
  if (failed > 0) process.exitCode = 1;
}

if (import.meta.main) main(process.argv.slice(2));
