/** Drivers with real keys, headers, justifications and timers, on an in-memory chain and network. */
import t from 'tap';
import { type AuthorityList, changeIn, grandpaLogItem, voterSetOf } from '../../consensus/grandpa/authorities.ts';
import { type GrandpaNetwork, GrandpaVoter, noNetwork } from '../../consensus/grandpa/driver.ts';
import { verifyJustification } from '../../consensus/grandpa/justification.ts';
import { blockId, decodeGossip } from '../../consensus/grandpa/messages.ts';
import type { PeerId } from '../../consensus/grandpa/peers.ts';
import type { BlockRef, Blocks, ChainEvent, ChainEvents, ImportResult } from '../../node/ports/chain.ts';
import { systemClock } from '../../node/ports/machine.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import {
  type DigestItem,
  GRANDPA_ENGINE,
  type Header,
  headerHash,
  type Justifications,
} from '../../runtime/primitives/header.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { hashing, MemoryJournal, signatures, type TestKey, testKey } from './support.ts';

/** Blocks of one node: what an import pipeline would keep, and the justification check that it would make. */
class MemoryChain implements Blocks, ChainEvents {
  readonly #headers = new Map<string, Header>();
  readonly #justifications = new Map<string, Justifications>();
  readonly #listeners = new Set<(event: ChainEvent) => void>();
  readonly genesis: Header;
  #best: BlockRef;
  #finalized: BlockRef;
  set: { setId: number; authorities: AuthorityList };

  constructor(authorities: AuthorityList) {
    this.genesis = makeHeader(undefined, []);
    this.#best = { hash: headerHash(hashing, this.genesis), number: 0 };
    this.#finalized = this.#best;
    this.#headers.set(toHex(this.#best.hash), this.genesis);
    this.set = { setId: 0, authorities };
  }

  info = () => ({ genesisHash: headerHash(hashing, this.genesis), best: this.#best, finalized: this.#finalized });
  header = (hash: Hash): Header | undefined => this.#headers.get(toHex(hash));
  hashOf(number: number): Hash | undefined {
    let at: Hash = this.#best.hash;
    for (;;) {
      const header = this.header(at)!;
      if (header.number <= number) return header.number === number ? at : undefined;
      at = header.parentHash;
    }
  }
  hashesAt = (): readonly Hash[] => [];
  body = (): undefined => undefined;
  justifications = (hash: Hash): Justifications | undefined => this.#justifications.get(toHex(hash));
  leaves = (): readonly Hash[] => [this.#best.hash];
  isFinalized = (hash: Hash): boolean => {
    const header = this.header(hash);
    const at = header === undefined ? undefined : this.hashOf(header.number);
    return at !== undefined && header!.number <= this.#finalized.number && equalBytes(at, hash);
  };

  subscribe(listener: (event: ChainEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #emit(event: ChainEvent): void {
    for (const each of this.#listeners) each(event);
  }

  add(header: Header): void {
    const block = { hash: headerHash(hashing, header), number: header.number };
    if (this.#headers.has(toHex(block.hash))) return;
    this.#headers.set(toHex(block.hash), header);
    const isNewBest = block.number > this.#best.number;
    if (isNewBest) this.#best = block;
    this.#emit({ type: 'imported', block, header, origin: 'gossip', isNewBest });
  }

  async importJustification(hash: Hash, justification: Uint8Array): Promise<ImportResult> {
    const header = this.header(hash);
    if (header === undefined) return { type: 'unknownParent' };
    if (header.number <= this.#finalized.number) return { type: 'known' };
    try {
      const { setId, authorities } = this.set;
      verifyJustification(
        justification,
        { setId, voters: voterSetOf(authorities), hashing, signatures },
        { hash: blockId(hash), number: header.number },
      );
    } catch (error) {
      return { type: 'invalid', reason: (error as Error).message };
    }
    const finalized: BlockRef[] = [];
    for (let number = this.#finalized.number + 1; number <= header.number; number++) {
      finalized.push({ hash: this.hashOf(number)!, number });
      const next = changeIn(this.header(this.hashOf(number)!)!);
      if (next !== undefined) this.set = { setId: this.set.setId + 1, authorities: next };
    }
    this.#finalized = { hash, number: header.number };
    this.#justifications.set(toHex(hash), [[GRANDPA_ENGINE, justification]]);
    this.#emit({ type: 'finalized', finalized, pruned: [] });
    return { type: 'imported', isNewBest: false };
  }
}

const makeHeader = (parent: Header | undefined, logs: DigestItem[]): Header => ({
  parentHash: parent === undefined ? asHash(new Uint8Array(32)) : headerHash(hashing, parent),
  number: parent === undefined ? 0 : parent.number + 1,
  stateRoot: asHash(new Uint8Array(32).fill(1)),
  extrinsicsRoot: asHash(new Uint8Array(32).fill(2)),
  digest: { logs },
});

interface Member {
  readonly name: PeerId;
  readonly chain: MemoryChain;
  readonly journal: MemoryJournal;
  readonly reports: string[];
  readonly order: string[];
  voter: GrandpaVoter;
  stop: AbortController;
  running: Promise<void>;
}

/** Everyone hears everyone; messages take a turn of the event loop. */
class Town {
  readonly members = new Map<PeerId, Member>();
  readonly #keys: readonly TestKey[];

  constructor(keys: readonly TestKey[]) {
    this.#keys = keys;
    const authorities = keys.map((each): [Uint8Array, bigint] => [each.publicKey, 1n]);
    for (const key of keys) this.boot(key.id, new MemoryChain(authorities), new MemoryJournal());
  }

  #network(name: PeerId, order: string[]): GrandpaNetwork {
    const deliver = (to: PeerId, bytes: Uint8Array): void => {
      setImmediate(() => void this.members.get(to)?.voter.message(name, bytes));
    };
    return {
      broadcast: (bytes, type) => {
        order.push(`send ${type}`);
        for (const to of this.members.keys()) if (to !== name) deliver(to, bytes);
      },
      send: deliver,
      wantBlock: () => {},
      behind: () => {},
      charge: () => {},
    };
  }

  boot(name: PeerId, chain: MemoryChain, journal: MemoryJournal): Member {
    const key = this.#keys.find((each) => each.id === name)!;
    const reports: string[] = [];
    const order: string[] = [];
    journal.onPut = () => order.push('written');
    const voter = new GrandpaVoter(
      {
        blocks: chain,
        events: chain,
        importer: chain,
        authoritySet: () => chain.set,
        keystore: {
          has: (type, publicKey) => type === 'gran' && equalBytes(publicKey, key.publicKey),
          sign: (_, __, message) => key.sign(message),
        },
        signatures,
        journal,
        network:
          this.#keys.length === 1
            ? { ...noNetwork, broadcast: (_, type) => order.push(`send ${type}`) }
            : this.#network(name, order),
        reportEquivocation: async (proof, encoded) => {
          reports.push(`${proof.phase} ${proof.voter} ${encoded.length}`);
        },
        clock: systemClock,
        random: () => 0.5,
        log: () => {},
      },
      { voting: true, timing: { gossipMs: 20, idleMs: 2_000, commitMs: 50 }, announceMs: 200 },
    );
    const stop = new AbortController();
    const member: Member = { name, chain, journal, reports, order, voter, stop, running: voter.run(stop.signal) };
    this.members.set(name, member);
    for (const other of this.members.values()) {
      if (other === member) continue;
      other.voter.connected(name);
      voter.connected(other.name);
    }
    return member;
  }

  /** Stops a member; its chain and journal stay. */
  async halt(name: PeerId): Promise<Member> {
    const member = this.members.get(name)!;
    this.members.delete(name);
    for (const other of this.members.values()) other.voter.disconnected(name);
    member.stop.abort();
    await member.running;
    return member;
  }

  grow(...logs: DigestItem[]): Header {
    const [first] = this.members.values();
    const header = makeHeader(first!.chain.header(first!.chain.info().best.hash), logs);
    for (const { chain } of this.members.values()) chain.add(header);
    return header;
  }

  async final(number: number, who: readonly PeerId[] = [...this.members.keys()]): Promise<boolean> {
    for (const end = performance.now() + 30_000; performance.now() < end; ) {
      if (who.every((name) => this.members.get(name)!.chain.info().finalized.number >= number)) return true;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return false;
  }

  async close(): Promise<void> {
    for (const name of [...this.members.keys()]) await this.halt(name);
  }
}

const keys = ['a', 'b', 'c', 'd', 'e'].map(testKey);
const authoritiesOf = (...which: number[]): AuthorityList => which.map((i) => [keys[i]!.publicKey, 1n]);

t.test('one authority: each block is final at once, with a justification', async (t) => {
  const town = new Town(keys.slice(0, 1));
  const [member] = town.members.values();
  let soonest = Number.POSITIVE_INFINITY;
  for (let number = 1; number <= 5; number++) {
    const started = performance.now();
    const header = town.grow();
    t.ok(await town.final(number), `block ${number}`);
    soonest = Math.min(soonest, performance.now() - started);
    const [justification] = member!.chain.justifications(headerHash(hashing, header))!;
    t.same(justification![0], GRANDPA_ENGINE);
  }
  t.ok(soonest < 500, `${Math.round(soonest)} ms`);
  t.equal(member!.order.indexOf('written') < member!.order.indexOf('send vote'), true);
  for (const [i, what] of member!.order.entries()) if (what === 'send vote') t.equal(member!.order[i - 1], 'written');
  const { best } = member!.voter.roundState()!;
  t.match(best, { totalWeight: 1, thresholdWeight: 1 });

  const old = await town.halt(member!.name);
  const again = town.boot(old.name, old.chain, old.journal);
  town.grow();
  t.ok(await town.final(6), 'after a restart');
  t.ok(again.voter.roundState()!.best.round > best.round, 'in a later round');

  again.journal.broken = true;
  const failed = t.rejects(again.running, { code: 'JOURNAL' }, 'a full disk stops the voter');
  again.order.length = 0;
  town.grow();
  await failed;
  t.notOk(again.order.includes('send vote'), 'and nothing was said');
  t.equal(again.chain.info().finalized.number, 6);
  again.journal.entries.set('grandpa/voter', new Uint8Array([1, 2]));
  const corrupt = town.boot(old.name, old.chain, again.journal);
  await t.rejects(corrupt.running, { code: 'CORRUPT_JOURNAL' }, 'nor does one that does not know what it said');
});

t.test('four authorities: finality, a stop, a change of the set', async (t) => {
  const town = new Town(keys.slice(0, 4));
  const names = keys.slice(0, 4).map((each) => each.id);
  town.grow();
  town.grow();
  t.ok(await town.final(2));
  const [, b] = names;
  const old = await town.halt(b!);
  town.grow();
  t.ok(await town.final(3), 'three of four are enough');
  const alsoOld = await town.halt(names[2]!);
  const missed = [town.grow(), town.grow()];
  await new Promise((resolve) => setTimeout(resolve, 500));
  t.same(
    [...town.members.values()].map((each) => each.chain.info().finalized.number),
    [3, 3],
    'two are not',
  );
  const third = [...town.members.values()][0]!.chain;
  for (const each of [old, alsoOld]) {
    each.chain.add(third.header(third.hashOf(3)!)!);
    for (const header of missed) each.chain.add(header);
    town.boot(each.name, each.chain, each.journal);
  }
  t.ok(await town.final(5), 'and four again');

  // From here on c, d and e decide; e joins by then.
  const change = grandpaLogItem({ type: 'ScheduledChange', value: { nextAuthorities: authoritiesOf(2, 3), delay: 0 } });
  town.grow(change);
  t.ok(await town.final(6), 'the block of the change');
  town.grow();
  t.ok(await town.final(7), 'the first by the new set');
  for (const { chain, voter } of town.members.values()) {
    t.equal(chain.set.setId, 1);
    t.equal(voter.roundState()?.setId, 1);
    t.equal(voter.roundState()?.best.totalWeight, 2);
  }
  t.same(
    [...town.members.values()].flatMap((each) => each.reports),
    [],
    'nobody voted twice',
  );
  await town.close();
});

t.test('what peers send', async (t) => {
  const town = new Town(keys.slice(0, 4));
  const [member] = town.members.values();
  t.match(await member!.voter.message('peer', new Uint8Array([9, 9])), { type: 'reject' });
  t.match(await member!.voter.message('peer', new Uint8Array()), { type: 'reject' });
  town.grow();
  t.ok(await town.final(1));
  // One that votes twice: the second vote is for genesis, in whatever round they are.
  const seen: string[] = [];
  const genesis = { hash: blockId(headerHash(hashing, member!.chain.genesis)), number: 0 };
  const { encodeGossip } = await import('../../consensus/grandpa/messages.ts');
  town.grow();
  for (let i = 0; i < 40 && member!.reports.length === 0; i++) {
    const round = member!.voter.roundState()!.best.round;
    for (const number of [round - 1, round]) {
      if (number < 1) continue;
      for (const kind of ['prevote', 'precommit'] as const) {
        const vote = keys[3]!.vote(kind, genesis, number, 0);
        seen.push(
          (await member!.voter.message('peer', encodeGossip({ type: 'vote', round: number, setId: 0, vote }))).type,
        );
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  t.ok(
    member!.reports.some((each) => each.includes(keys[3]!.id)),
    'evidence was taken to the chain',
  );
  t.ok(await town.final(2), 'and finality went on');
  const junk = await Promise.all(
    Array.from({ length: 20_000 }, (_, i) =>
      member!.voter.message(`flood ${i % 7}`, encodeGossip({ type: 'neighbour', round: i, setId: 0, finalized: i })),
    ),
  );
  t.ok(junk.filter((each) => each.type === 'ignore').length > 15_000, 'a flood is dropped before it is queued');
  t.equal(decodeGossip(encodeGossip({ type: 'catchUpRequest', round: 1, setId: 0 })).type, 'catchUpRequest');
  await town.close();
});
