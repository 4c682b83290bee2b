/** The voter, by the scenarios of the public `finality-grandpa` test suite and by what it must never do; then among peers. */
import t from 'tap';
import type { GossipMessage } from '../../consensus/grandpa/messages.ts';
import {
  COST,
  type Effect,
  type Participant,
  type ParticipantEnv,
  type ParticipantEvent,
  step as participantStep,
  start,
  type Verdict,
} from '../../consensus/grandpa/participant.ts';
import { roundState } from '../../consensus/grandpa/round-state.ts';
import {
  type RoundTimer,
  recordOf,
  type Voter,
  type VoterEffect,
  type VoterEnv,
  type VoterEvent,
  type VoterRecord,
  type VoterStep,
} from '../../consensus/grandpa/voter.ts';
import { VoterSet } from '../../consensus/grandpa/voter-set.ts';
import type {
  BlockId,
  Commit,
  Precommit,
  SignedVote,
  Target,
  VoteKind,
  VoterId,
} from '../../consensus/grandpa/votes.ts';
import { resume, startSet, step } from '../../consensus/grandpa/voting.ts';
import { GENESIS, NamedChain } from './support.ts';

const voterOf = (n: number): VoterId => `v${String(n).padStart(3, '0')}` as VoterId;
const setOf = (count: number): VoterSet =>
  new VoterSet(Array.from({ length: count }, (_, i) => [voterOf(i), 1] as const));
const signed = <K extends VoteKind>(kind: K, voter: number, target: Target): SignedVote & { readonly kind: K } => ({
  kind,
  target,
  voter: voterOf(voter),
  signature: new TextEncoder().encode(`signed by ${voterOf(voter)}`),
});
const envOf = (chain: NamedChain, me: number): VoterEnv => ({
  chain,
  timing: { gossipMs: 100, idleMs: 5_000, commitMs: 1_000 },
  identity: (voters) => (voters.has(voterOf(me)) ? voterOf(me) : undefined),
  sign: (voter, kind, target) => (voter === voterOf(me) ? signed(kind, me, target).signature : undefined),
});
const line = (): NamedChain => new NamedChain().push(GENESIS, 'A', 'B', 'C', 'D', 'E');
const genesis: Target = { hash: GENESIS, number: 1 };

/** Voters with a common chain; messages arrive at once, timers in their order. */
class Net {
  readonly chain: NamedChain;
  readonly states = new Map<number, Voter>();
  readonly finalized = new Map<number, string[]>();
  readonly sent: VoterEffect[] = [];
  readonly #agenda: { at: number; who: number; timer: RoundTimer }[] = [];
  readonly #mail: { from: number; event: VoterEvent }[] = [];
  now = 0;

  constructor(chain: NamedChain, voters: VoterSet, online: readonly number[]) {
    this.chain = chain;
    for (const who of online) this.#apply(who, startSet(envOf(chain, who), 0, voters, genesis));
  }

  #apply(who: number, result: VoterStep): void {
    this.states.set(who, result.state);
    for (const effect of result.effects) {
      this.sent.push(effect);
      if (effect.type === 'setTimer')
        this.#agenda.push({ at: this.now + effect.afterMs + effect.withinMs * (who / 100), who, timer: effect.timer });
      if (effect.type === 'sendVote')
        this.#mail.push({ from: who, event: { type: 'vote', round: effect.round, vote: effect.vote } });
      if (effect.type === 'sendCommit')
        this.#mail.push({ from: who, event: { type: 'commit', round: effect.round, commit: effect.commit } });
      if (effect.type === 'finalize') {
        this.finalized.set(who, [...(this.finalized.get(who) ?? []), effect.commit.target.hash]);
        if (effect.commit.target.number > this.chain.finalized.number) this.chain.finalized = effect.commit.target;
      }
    }
  }

  tell(who: number, event: VoterEvent): void {
    this.#apply(who, step(envOf(this.chain, who), this.states.get(who)!, event));
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const mail = this.#mail.shift();
      if (mail !== undefined) {
        for (const who of this.states.keys()) if (who !== mail.from) this.tell(who, mail.event);
        continue;
      }
      this.#agenda.sort((a, b) => a.at - b.at);
      if (this.#agenda[0] === undefined || this.#agenda[0].at > end) break;
      const { at, who, timer } = this.#agenda.shift()!;
      this.now = at;
      this.tell(who, { type: 'timer', timer });
    }
    this.now = end;
  }
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const ofType = <T extends VoterEffect['type']>(effects: readonly VoterEffect[], type: T) =>
  effects.filter((each): each is Extract<VoterEffect, { type: T }> => each.type === type);

t.test('alone: every block at once, each in a round of its own', async (t) => {
  const chain = line();
  const env = envOf(chain, 0);
  const first = startSet(env, 0, setOf(1), genesis);
  t.same(
    ofType(first.effects, 'finalize').map((each) => each.commit.target.hash),
    ['E'],
  );
  t.equal(first.state.best.votes.number, 2);
  t.equal(first.state.best.stage, 'start', 'and then it waits');
  chain.push('E', 'F');
  chain.finalized = chain.at('E');
  const second = step(env, first.state, { type: 'chain' });
  t.same(
    second.effects.map((each) => each.type),
    ['persist', 'sendVote', 'persist', 'sendVote', 'finalize', 'persist', 'setTimer'],
    'written down before it is sent',
  );
  t.same(ofType(second.effects, 'finalize')[0]?.commit.precommits.length, 1);
  t.same(step(env, second.state, { type: 'chain' }).effects, [], 'nothing new, nothing said');
});

t.test('with as many silent as there may be', async (t) => {
  const net = new Net(line(), setOf(10), range(7));
  net.run(10_000);
  for (const who of range(7)) t.same(net.finalized.get(who), ['E']);
  const stuck = new Net(line(), setOf(10), range(6));
  stuck.run(60_000);
  t.equal(stuck.finalized.size, 0, 'one more, and nothing is final');
  t.equal(Math.max(...[...stuck.states.values()].map((each) => each.best.votes.number)), 1);
});

t.test('round states as reported', async (t) => {
  const net = new Net(line(), setOf(10), range(7));
  const before = roundState(net.states.get(0)!);
  t.match(before, {
    setId: 0,
    best: { round: 1, totalWeight: 10, thresholdWeight: 7, prevotes: { currentWeight: 0 } },
    background: [],
  });
  net.run(450);
  const after = roundState(net.states.get(0)!);
  t.equal(after.best.round, 2);
  t.same(after.background[0]?.precommits, { currentWeight: 7, missing: [voterOf(7), voterOf(8), voterOf(9)] });
});

t.test('commits: sent once, and not by those who saw one', async (t) => {
  const net = new Net(line(), setOf(4), range(4));
  net.run(1_500);
  const commits = ofType(net.sent, 'sendCommit');
  t.equal(commits.length, 1);
  t.equal(commits[0]?.commit.target.hash, 'E');
});

t.test('a commit of any round finalizes', async (t) => {
  const chain = line();
  const env = envOf(chain, 0);
  const { state } = startSet(env, 0, setOf(4), genesis);
  const commit: Commit = {
    target: chain.at('E'),
    precommits: [1, 2, 3].map((who) => signed('precommit', who, chain.at('E'))),
  };
  for (const round of [0, 1, 77]) {
    const result = step(env, state, { type: 'commit', round, commit });
    t.same(
      ofType(result.effects, 'finalize').map((each) => [each.round, each.commit]),
      [[round, commit]],
    );
    t.equal(result.state.best.votes.number, 1, 'and the round goes on');
  }
  const short: Commit = { ...commit, precommits: commit.precommits.slice(1) };
  const result = step(env, state, { type: 'commit', round: 1, commit: short });
  t.same(result.effects, []);
  t.match(result.outcome, { type: 'commit', result: { valid: false } });
});

t.test('catching up', async (t) => {
  const chain = line();
  const env = envOf(chain, 9);
  const { state } = startSet(env, 0, setOf(3), genesis);
  const votes = <K extends VoteKind>(kind: K, count = 3) => range(count).map((who) => signed(kind, who, chain.at('C')));
  const catchUp = { round: 5, base: genesis, prevotes: votes('prevote'), precommits: votes('precommit') };
  const result = step(env, state, { type: 'catchUp', catchUp });
  t.same(result.outcome, { type: 'catchUp', good: true });
  t.equal(result.state.best.votes.number, 6);
  t.same(
    result.state.past.map((each) => [each.votes.number, each.votes.prevote.weight, each.votes.precommit.weight]),
    [
      [5, 3, 3],
      [1, 0, 0],
    ],
  );
  t.same(
    ofType(result.effects, 'finalize').map((each) => each.commit.target.hash),
    ['C'],
  );
  for (const bad of [
    { ...catchUp, round: 1 },
    { ...catchUp, prevotes: votes('prevote', 2) },
    { ...catchUp, precommits: votes('precommit', 2) },
    { ...catchUp, prevotes: [...votes('prevote', 2), signed('prevote', 50, chain.at('C'))] },
  ]) {
    const refused = step(env, state, { type: 'catchUp', catchUp: bad });
    t.same(refused.outcome, { type: 'catchUp', good: false });
    t.equal(refused.state.best.votes.number, 1);
  }
});

t.test('taking up an earlier round', async (t) => {
  t.test('without its votes', async (t) => {
    const chain = line();
    const record: VoterRecord = {
      setId: 0,
      voters: [[voterOf(0), 100]],
      round: 11,
      base: genesis,
      own: [],
      previous: undefined,
    };
    const result = resume(envOf(chain, 0), record, setOf(1), genesis);
    t.same(
      ofType(result.effects, 'finalize').map((each) => each.commit.target.hash),
      ['E'],
    );
  });

  t.test('with an estimate that is not final yet', async (t) => {
    const chain = line();
    const voters = setOf(100);
    const precommits = range(67).map((who) => signed('precommit', who, chain.at(who < 66 ? 'D' : 'E')));
    const prevotes = range(67).map((who) => signed('prevote', who, chain.at('E')));
    const record: VoterRecord = {
      setId: 0,
      voters: voters.voters.map((each) => [each.id, 1] as const),
      round: 2,
      base: genesis,
      own: [],
      previous: { round: 1, base: genesis, prevotes, precommits },
    };
    const env = envOf(chain, 99);
    let { state } = resume(env, record, voters, genesis);
    t.same(state.best.previous.estimate, chain.at('E'), 'round 1 is complete and might have finalized E');
    const tell = (event: VoterEvent) => {
      const result = step(env, state, event);
      state = result.state;
      return result.effects;
    };
    for (const vote of [...prevotes, ...precommits]) tell({ type: 'vote', round: 2, vote });
    for (const kind of ['prevote', 'precommit'] as const)
      tell({ type: 'timer', timer: { type: 'round', setId: 0, round: 2, kind } });
    t.equal(state.best.votes.number, 2, 'stays in round 2 as long as E might be final');
    t.equal(state.best.stage, 'precommitted');
    tell({ type: 'vote', round: 1, vote: signed('precommit', 67, chain.at('D')) });
    t.equal(state.best.votes.number, 3, 'one more precommit, and E can not have been');
  });

  t.test('with votes of its own: these, and no others', async (t) => {
    const chain = line();
    const env = envOf(chain, 0);
    let { state } = startSet(env, 0, setOf(4), genesis);
    let effects: readonly VoterEffect[] = [];
    const tell = (event: VoterEvent) => ({ state, effects } = step(env, state, event));
    tell({ type: 'timer', timer: { type: 'round', setId: 0, round: 1, kind: 'prevote' } });
    t.same(
      effects.map((each) => each.type),
      ['persist', 'sendVote', 'setTimer'],
    );
    const { record } = ofType(effects, 'persist')[0]!;
    t.same(
      record.own.map((each) => [each.kind, each.target.hash]),
      [['prevote', 'E']],
    );
    t.same(record, recordOf(state));
    chain.push('D', 'E2', 'F2', 'G2');
    const again = resume(env, record, setOf(4), genesis);
    t.same(
      ofType(again.effects, 'sendVote').map((each) => each.vote),
      record.own,
      'sent again, as it was',
    );
    const later = step(env, again.state, {
      type: 'timer',
      timer: { type: 'round', setId: 0, round: 1, kind: 'prevote' },
    });
    t.same(ofType(later.effects, 'sendVote'), [], 'though another chain is longer now');

    // A journal that was lost: what comes back from the network is taken for what it is.
    const fresh = startSet(env, 0, setOf(4), genesis);
    const reminded = step(env, fresh.state, { type: 'vote', round: 1, vote: record.own[0]! });
    const due = step(env, reminded.state, {
      type: 'timer',
      timer: { type: 'round', setId: 0, round: 1, kind: 'prevote' },
    });
    t.same(
      ofType(due.effects, 'sendVote').map((each) => each.vote.target.hash),
      ['E'],
      'not G2',
    );

    const lost = resume(
      env,
      { ...record, round: 2, own: [], previous: { round: 1, base: genesis, prevotes: [], precommits: [] } },
      setOf(4),
      genesis,
    );
    t.equal(lost.state.best.stage, 'passive', 'without the estimate of the round before it says nothing');
  });
});

t.test('primary: its hint is followed when it fits', async (t) => {
  const chain = line();
  const env = envOf(chain, 0);
  const voters = setOf(4);
  // Round 1 saw prevotes for E and precommits for C: nothing above C can be final, but E is what most would have had.
  const previous = {
    round: 1,
    base: genesis,
    prevotes: [0, 1, 2].map((who) => signed('prevote', who, chain.at('E'))),
    precommits: [
      signed('precommit', 0, chain.at('C')),
      signed('precommit', 1, chain.at('C')),
      signed('precommit', 2, chain.at('C')),
    ],
  };
  const record: VoterRecord = {
    setId: 0,
    voters: voters.voters.map((each) => [each.id, 1] as const),
    round: 2,
    base: genesis,
    own: [],
    previous,
  };
  let { state } = resume(env, record, voters, genesis);
  t.same(state.best.previous.estimate, chain.at('C'));
  t.same(state.best.previous.prevoteGhost, chain.at('E'));
  chain.push('C', 'D2', 'E2', 'F2', 'G2');
  const vote = (hint: SignedVote | undefined): string | undefined => {
    const hinted = hint === undefined ? state : step(env, state, { type: 'vote', round: 2, vote: hint }).state;
    const result = step(env, hinted, { type: 'timer', timer: { type: 'round', setId: 0, round: 2, kind: 'prevote' } });
    return ofType(result.effects, 'sendVote')[0]?.vote.target.hash;
  };
  t.equal(vote(undefined), 'G2', 'the best chain with the estimate');
  t.equal(
    vote(signed('propose', 2, chain.at('D'))),
    'E',
    'the best chain with the hint, which the last round could have agreed on',
  );
  t.equal(vote(signed('propose', 1, chain.at('D'))), 'G2', 'not from someone else');
  t.equal(vote(signed('propose', 2, chain.at('D2'))), 'G2', 'not below the prevotes of the last round');
  t.equal(vote(signed('propose', 2, chain.at('B'))), 'G2', 'not below the estimate');
  state = resume(envOf(chain, 2), record, voters, genesis).state;
  t.equal(state.best.stage, 'start', 'an estimate that is final needs no hint');
});

t.test('a change of authorities', async (t) => {
  const chain = line();
  const next = new VoterSet([voterOf(0), voterOf(5)].map((id) => [id, 1] as const));
  chain.changeAt('C', next);
  const net = new Net(chain, setOf(4), range(4));
  net.run(2_000);
  for (const who of range(4)) {
    t.same(net.finalized.get(who), ['C'], 'the old set goes no further');
    t.match(net.states.get(who), { setId: 1, best: { votes: { number: 1 } } });
    t.same(net.states.get(who)!.best.votes.graph.base, chain.at('C'));
  }
  t.same(
    ofType(net.sent, 'sendVote').filter((each) => each.vote.target.number > chain.at('C').number && each.setId === 0),
    [],
  );
  t.equal(net.states.get(1)!.me, undefined);
  t.ok(ofType(net.sent, 'sendCommit').length >= 1, 'who waits is told');

  const env = envOf(chain, 0);
  const { state } = startSet(env, 0, setOf(4), genesis);
  const synced = step(env, state, { type: 'finalized', target: chain.at('E') });
  t.match(synced.state, { setId: 1, finalized: { hash: 'E' } }, 'by sync too');
  t.same(ofType(synced.effects, 'persist')[0]?.record.setId, 1);
});

t.test('equivocation is reported once, with both votes', async (t) => {
  const chain = line().push('C', 'X');
  const env = envOf(chain, 0);
  let { state } = startSet(env, 3, setOf(4), genesis);
  const reports: VoterEffect[] = [];
  for (const block of ['E', 'E', 'X', 'D']) {
    const result = step(env, state, { type: 'vote', round: 1, vote: signed('prevote', 1, chain.at(block)) });
    state = result.state;
    reports.push(...ofType(result.effects, 'equivocation'));
  }
  t.equal(reports.length, 1);
  t.match(reports[0], {
    proof: {
      setId: 3,
      round: 1,
      phase: 'prevote',
      voter: voterOf(1),
      first: { target: { hash: 'E' } },
      second: { target: { hash: 'X' } },
    },
  });
});

t.test('among peers', async (t) => {
  const FORGED = new Uint8Array(3);
  const setup = (voters = setOf(4), chain = line()) => {
    let now = 0;
    let verified = 0;
    const env: ParticipantEnv = {
      ...envOf(chain, 0),
      announceMs: 1_000,
      now: () => now,
      verify: (vote) => {
        verified++;
        return vote.signature !== FORGED;
      },
    };
    const first = start(env, { setId: 0, voters, finalized: genesis, record: undefined, recordVoters: undefined });
    let state: Participant = first.state;
    let effects: readonly Effect[] = first.effects;
    let verdict: Verdict = first.verdict;
    const tell = (event: ParticipantEvent): Verdict => {
      ({ state, effects, verdict } = participantStep(env, state, event));
      return verdict;
    };
    return {
      chain,
      tell,
      hear: (message: GossipMessage, from = 'p'): Verdict => tell({ type: 'message', from, message }),
      vote: (round: number, vote: SignedVote, from = 'p'): Verdict =>
        tell({ type: 'message', from, message: { type: 'vote', round, setId: 0, vote } }),
      advance: (ms: number) => {
        now += ms;
      },
      sends: (): GossipMessage[] => effects.flatMap((each) => (each.type === 'send' ? [each.message] : [])),
      types: (): string[] => effects.map((each) => each.type),
      get effects() {
        return effects;
      },
      get state() {
        return state;
      },
      get verified() {
        return verified;
      },
    };
  };

  t.test('votes: verdicts, and nothing verified twice', async (t) => {
    const p = setup();
    const good = signed('prevote', 1, p.chain.at('E'));
    t.same(p.vote(1, good), { type: 'accept' });
    t.same(p.vote(1, good), { type: 'ignore' });
    t.equal(p.verified, 1);
    t.same(p.vote(5, signed('prevote', 2, p.chain.at('E'))), { type: 'ignore' }, 'a round far off');
    t.match(p.vote(1, signed('prevote', 77, p.chain.at('E'))), { type: 'reject' });
    t.equal(p.verified, 1, 'neither needed a signature');
    t.match(p.vote(1, { ...signed('prevote', 2, p.chain.at('E')), signature: FORGED }), { type: 'reject', cost: 1000 });
    t.same(p.hear({ type: 'vote', round: 1, setId: 1, vote: good }), { type: 'ignore' }, 'another set');
    t.equal(p.state.voter.best.votes.prevote.weight, 1);
  });

  t.test('votes that come early wait, a few for every voter', async (t) => {
    const p = setup();
    const unknown = (n: number): Target => ({ hash: `new${n}` as BlockId, number: 7 });
    t.same(p.vote(1, signed('prevote', 1, unknown(0))), { type: 'accept' });
    t.same(p.types(), ['wantBlock']);
    for (let i = 0; i < 10_000; i++) {
      for (const kind of ['prevote', 'precommit', 'propose'] as const) p.vote(1 + (i % 2), signed(kind, 1, unknown(i)));
    }
    t.ok(p.state.waiting.votes.get(voterOf(1))!.length <= 9);
    for (let i = 0; i < 5_000; i++) {
      const target = { hash: `c${i}` as BlockId, number: 7 + i };
      p.hear({
        type: 'commit',
        round: 1,
        setId: 0,
        commit: { target, precommits: [1, 2, 3].map((who) => signed('precommit', who, target)) },
      });
    }
    t.ok(p.state.waiting.commits.length <= 4);
    t.equal(p.state.voter.best.votes.prevote.weight, 0);
    p.chain.push('E', 'new0');
    p.tell({ type: 'chain' });
    t.equal(p.state.voter.best.votes.prevote.weight, 1, 'counted when the block is there');
  });

  t.test('a block that did not come is asked of whoever names it again', async (t) => {
    const p = setup();
    const target: Target = { hash: 'lost' as BlockId, number: 7 };
    const vote = signed('prevote', 1, target);
    const wanted = () => p.effects.flatMap((each) => (each.type === 'wantBlock' ? [each.from] : []));
    t.same(p.vote(1, vote, 'gone'), { type: 'accept' });
    t.same(wanted(), ['gone']);
    t.same(p.vote(1, vote, 'other'), { type: 'ignore' });
    t.same(wanted(), ['other']);
    const commit = { target, precommits: [1, 2, 3].map((who) => signed('precommit', who, target)) };
    t.same(p.hear({ type: 'commit', round: 1, setId: 0, commit }, 'gone'), { type: 'accept' });
    t.same(p.hear({ type: 'commit', round: 1, setId: 0, commit }, 'other'), { type: 'ignore' });
    t.same(wanted(), ['other']);
    p.chain.push('E', 'lost');
    p.tell({ type: 'chain' });
    t.same(p.vote(1, vote, 'other'), { type: 'ignore' });
    t.same(wanted(), [], 'it is here');
  });

  t.test('commits', async (t) => {
    const p = setup();
    const commit = (block: string, voters: number[]): Commit => ({
      target: p.chain.at(block),
      precommits: voters.map((who) => signed('precommit', who, p.chain.at(block))),
    });
    const say = (value: Commit): Verdict => p.hear({ type: 'commit', round: 9, setId: 0, commit: value });
    t.match(say(commit('C', [1, 2])), { type: 'reject', reason: 'a commit by too few voters' });
    t.match(say(commit('C', [1, 2, 2, 2])), { type: 'reject' });
    t.match(say(commit('C', [1, 2, 3, 4])), { type: 'reject', reason: 'a commit with someone who is no voter' });
    t.match(
      say({
        target: p.chain.at('C'),
        precommits: Array.from({ length: 9 }, () => signed('precommit', 1, p.chain.at('C'))),
      }),
      { type: 'reject' },
    );
    t.equal(p.verified, 0);
    t.match(say({ ...commit('B', [1, 2, 3]), target: p.chain.at('A') }), {
      type: 'reject',
      reason: 'a commit that finalizes nothing',
    });
    t.match(
      say({
        ...commit('C', [1, 2, 3]),
        precommits: commit('C', [1, 2, 3]).precommits.map((each): Precommit => ({ ...each, signature: FORGED })),
      }),
      { type: 'reject' },
    );
    t.same(say(commit('C', [1, 2, 3])), { type: 'accept' });
    t.ok(p.types().includes('finalize'));
    t.same(say(commit('B', [1, 2, 3])), { type: 'ignore' }, 'nothing new');
  });

  t.test('peers ahead are asked, and who does not answer keeps nobody else from it', async (t) => {
    const p = setup();
    const votes = <K extends VoteKind>(kind: K) => [1, 2, 3].map((who) => signed(kind, who, p.chain.at('C')));
    const catchUp = { round: 8, base: genesis, prevotes: votes('prevote'), precommits: votes('precommit') };
    t.match(p.hear({ type: 'catchUp', setId: 0, catchUp }), { type: 'reject' }, 'nobody asked');
    p.hear({ type: 'neighbour', round: 2, setId: 0, finalized: 1 });
    t.same(
      p.sends().map((each) => each.type),
      [],
      'one round ahead is followed by votes',
    );
    // A liar is asked once, however often it says so, and pays for its silence.
    const lie: GossipMessage = { type: 'neighbour', round: 1_000_000, setId: 0, finalized: 1 };
    const charges = (): unknown[] => p.effects.filter(({ type }) => type === 'charge');
    let asked = 0;
    for (let i = 0; i < 600; i++) {
      p.hear(lie, 'liar');
      asked += p.sends().length;
      p.advance(5);
    }
    t.equal(asked, 1, 'once in three seconds');
    p.hear({ type: 'neighbour', round: 11, setId: 0, finalized: 1 }, 'q');
    t.match(charges(), [{ type: 'charge', peer: 'liar', cost: COST.unanswered }]);
    t.same(p.sends(), [{ type: 'catchUpRequest', round: 10, setId: 0 }], 'an honest peer is asked beside it');
    p.hear(lie, 'liar');
    t.same(p.sends(), [], 'and the liar not again so soon');
    t.match(
      p.hear({ type: 'catchUp', setId: 0, catchUp }, 'q'),
      { type: 'reject' },
      'an older round than was asked for',
    );
    p.advance(5_000);
    t.same(p.hear({ type: 'catchUp', setId: 0, catchUp: { ...catchUp, round: 10 } }, 'q'), { type: 'accept' }, 'late');
    t.equal(p.state.voter.best.votes.number, 11);
    t.ok(p.types().includes('broadcast'), 'and everyone is told');
    const again = { type: 'catchUp', setId: 0, catchUp: { ...catchUp, round: 10 } } as const;
    t.match(p.hear(again, 'q'), { type: 'reject' }, 'one answer a question');

    p.tell({ type: 'connected', peer: 'r' });
    t.same(p.hear({ type: 'catchUpRequest', round: 9, setId: 0 }, 'r'), { type: 'accept' });
    t.match(p.sends(), [{ type: 'catchUp', catchUp: { round: 10 } }], 'now it can help others');
    t.match(p.hear({ type: 'catchUpRequest', round: 9, setId: 0 }, 'r'), { type: 'reject' }, 'not all the time');
    t.same(p.hear({ type: 'catchUpRequest', round: 50, setId: 0 }, 'q'), { type: 'ignore' });
    p.hear({ type: 'neighbour', round: 1, setId: 2, finalized: 9 }, 'z');
    t.same(p.types(), ['behind']);
  });

  t.test('a peer that does not get on is sent what it may lack', async (t) => {
    const p = setup();
    p.vote(1, signed('prevote', 1, p.chain.at('E')));
    p.vote(1, signed('precommit', 2, p.chain.at('E')));
    const packet: GossipMessage = { type: 'neighbour', round: 1, setId: 0, finalized: 1 };
    p.tell({ type: 'connected', peer: 'q' });
    t.same(p.sends(), [packet], 'told where this node stands');
    p.hear(packet, 'q');
    t.equal(p.sends().length, 2, 'a newcomer gets the votes of its round');
    let repeats = 0;
    for (let i = 0; i < 32; i++) {
      p.hear(packet, 'q');
      if (p.sends().length > 0) repeats++;
    }
    t.equal(repeats, 0, 'not as fast as it asks');
    for (let i = 0; i < 32; i++) {
      p.advance(1_000);
      p.hear(packet, 'q');
      if (p.sends().length > 0) repeats++;
    }
    t.ok(repeats >= 3 && repeats <= 8, `sent again ${repeats} times in 32`);
    p.vote(1, signed('prevote', 3, p.chain.at('D')));
    p.hear(packet, 'q');
    t.equal(p.sends().length, 3, 'something new goes at once');
    let messages = 0;
    for (let i = 0; i < 400; i++) {
      p.hear({ ...packet, round: 1 + ((i >> 1) % 2) }, 'q');
      messages += p.sends().length;
      p.advance(2);
    }
    t.ok(messages <= 6, `to and fro between two rounds brings it ${messages} messages`);
    p.tell({ type: 'disconnected', peer: 'q' });
    t.equal(p.state.peers.has('q'), false);
    for (let i = 0; i < 3_000; i++) p.hear(packet, `sybil ${i}`);
    t.ok(p.state.peers.size <= 1_024);
  });
});
