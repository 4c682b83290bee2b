/**
 * Vote graph, round and commit, by the scenarios of the public `finality-grandpa` test suite, and against a slow
 * implementation of the paper's definitions on random votes.
 */
import t from 'tap';
import { commitOf, validateCommit } from '../../consensus/grandpa/commit.ts';
import { castBy, importVote, newRound, precommitGhost, type Round } from '../../consensus/grandpa/round.ts';
import {
  ghost,
  highestBelow,
  insertVote,
  lowerBase,
  type VoteGraph,
  voteGraph,
  votesFor,
} from '../../consensus/grandpa/vote-graph.ts';
import { maskUnion, maskWith, VoterSet } from '../../consensus/grandpa/voter-set.ts';
import type { BlockId, Phase, Precommit, SignedVote, Target, VoterId } from '../../consensus/grandpa/votes.ts';
import { GENESIS, NamedChain, seeded } from './support.ts';

const sum = { none: 0, add: (a: number, b: number) => a + b };
const graphOn = (chain: NamedChain, base: string): VoteGraph<number> => voteGraph(chain.at(base), sum);
const put = (
  graph: VoteGraph<number>,
  chain: NamedChain,
  ...votes: [block: string, weight: number][]
): VoteGraph<number> =>
  votes.reduce((each, [block, weight]) => insertVote(each, chain.at(block), weight, chain)!, graph);
const atLeast = (weight: number) => (votes: number) => votes >= weight;

const forked = (): NamedChain => {
  const chain = new NamedChain().push(GENESIS, 'A', 'B', 'C');
  return chain.push('C', 'D1', 'E1', 'F1').push('C', 'D2', 'E2', 'F2');
};
const wide = (): NamedChain =>
  new NamedChain()
    .push(GENESIS, 'A', 'B', 'C', 'D', 'E', 'F')
    .push('E', 'EA', 'EB', 'EC', 'ED')
    .push('F', 'FA', 'FB', 'FC');

t.test('vote graph', async (t) => {
  t.test('a fork between nodes: both heads hang on the node below', async (t) => {
    const chain = forked();
    const graph = put(graphOn(chain, GENESIS), chain, ['A', 100], ['E1', 100], ['F2', 100]);
    t.same(graph.nodes.get('A' as BlockId)?.above, ['E1', 'F2']);
    t.equal(graph.nodes.get('A' as BlockId)?.votes, 300);
    t.equal(graph.nodes.get('E1' as BlockId)?.edge.at(-1), 'A');
    t.equal(graph.nodes.get('F2' as BlockId)?.votes, 100);
    t.equal(votesFor(graph, chain.at('C')), 200, 'a block on two edges has the votes of both');
    t.equal(votesFor(graph, chain.at('F1')), undefined, 'a block nobody voted at or above is not in it');
  });

  t.test('a fork at a node, whatever the order of votes', async (t) => {
    const chain = forked();
    for (const order of [
      ['C', 'E1', 'F2'],
      ['E1', 'F2', 'C'],
      ['E1', 'C', 'F2'],
    ]) {
      const graph = put(graphOn(chain, GENESIS), chain, ...order.map((each): [string, number] => [each, 100]));
      const node = graph.nodes.get('C' as BlockId)!;
      t.same([...node.above].sort(), ['E1', 'F2']);
      t.equal(node.votes, 300);
      t.equal(node.edge.at(-1), GENESIS);
      for (const head of ['E1', 'F2'] as BlockId[]) {
        t.equal(graph.nodes.get(head)!.edge.at(-1), 'C');
        t.equal(graph.nodes.get(head)!.votes, 100);
      }
    }
  });

  t.test('ghost where votes merge, at a node and between nodes', async (t) => {
    const chain = forked();
    const graph = put(graphOn(chain, GENESIS), chain, ['B', 0], ['C', 100], ['E1', 100], ['F2', 100]);
    for (const from of [undefined, chain.at('C'), chain.at('B')])
      t.same(ghost(graph, from, atLeast(250)), chain.at('C'));

    const long = new NamedChain()
      .push(GENESIS, 'A', 'B', 'C', 'D', 'E', 'F')
      .push('F', 'G1', 'H1', 'I1')
      .push('F', 'G2', 'H2', 'I2');
    const sided = put(graphOn(long, GENESIS), long, ['B', 0], ['G1', 100], ['H2', 150]);
    for (const from of [undefined, long.at('F'), long.at('C'), long.at('B')]) {
      t.same(ghost(sided, from, atLeast(250)), long.at('F'));
    }
  });

  t.test('a branch introduced below others', async (t) => {
    const chain = wide();
    const before = put(graphOn(chain, GENESIS), chain, ['FC', 5], ['ED', 7]);
    t.same(ghost(before, undefined, atLeast(10)), chain.at('E'));
    t.same(before.nodes.get(GENESIS)!.above, ['FC', 'ED']);
    const after = put(before, chain, ['E', 3]);
    t.same(after.nodes.get(GENESIS)!.above, ['E']);
    t.same([...after.nodes.get('E' as BlockId)!.above].sort(), ['ED', 'FC']);
    for (const from of [undefined, chain.at('C'), chain.at('E')])
      t.same(ghost(after, from, atLeast(10)), chain.at('E'));
    t.same(before.nodes.get(GENESIS)!.above, ['FC', 'ED'], 'the graph before is as it was');
  });

  t.test('walking down from a block to enough votes', async (t) => {
    const below = new NamedChain()
      .push(GENESIS, 'A', 'B', 'C')
      .push('C', 'D1', 'E1', 'F1', 'G1')
      .push('C', 'D2', 'E2', 'F2', 'G2');
    let graph = put(graphOn(below, GENESIS), below, ['B', 10], ['F1', 5], ['G2', 5]);
    for (const block of ['D1', 'D2', 'E1', 'E2', 'F1', 'F2', 'G2']) {
      t.same(
        highestBelow(graph, below.at(block), (votes) => votes > 5),
        below.at('C'),
        `from ${block}`,
      );
    }
    const node = new NamedChain()
      .push(GENESIS, 'A', 'B', 'C')
      .push('C', 'D1', 'E1', 'F1', 'G1', 'H1', 'I1')
      .push('C', 'D2', 'E2', 'F2');
    graph = put(graphOn(node, GENESIS), node, ['C', 10], ['F1', 5], ['F2', 5], ['I1', 1]);
    for (const block of ['C', 'D1', 'D2', 'E1', 'E2', 'F1', 'F2', 'I1']) {
      t.same(highestBelow(graph, node.at(block), atLeast(20)), node.at('C'), `from ${block}`);
    }
    const early = new NamedChain()
      .push(GENESIS, 'A')
      .push(GENESIS, 'B')
      .push('A', 'A1')
      .push('A', 'A2')
      .push('B', 'B1')
      .push('B', 'B2');
    graph = put(graphOn(early, GENESIS), early, ['B1', 1], ['B2', 1], ['A1', 1], ['A2', 1]);
    t.same(highestBelow(graph, early.at('A'), atLeast(2)), early.at('A'), 'not lower than needed');
  });

  t.test('lowering the base', async (t) => {
    const chain = wide();
    let graph = put(graphOn(chain, 'E'), chain, ['FC', 5], ['ED', 7]);
    graph = lowerBase(graph, ['D', 'C', 'B', 'A'] as BlockId[]);
    t.same(graph.base, chain.at('A'));
    chain.push('A', '3', '4', '5');
    graph = lowerBase(graph, [GENESIS]);
    t.same(graph.base, { hash: GENESIS, number: 1 });
    t.equal(votesFor(graph, graph.base), 12);
    graph = put(graph, chain, ['5', 3]);
    t.equal(votesFor(graph, graph.base), 15);
    t.equal(insertVote(graph, { hash: 'nowhere' as BlockId, number: 9 }, 1, chain), undefined);
  });
});

const vote = (kind: Phase, chain: NamedChain, voter: string, block: string): SignedVote => ({
  kind,
  target: chain.at(block),
  voter: voter as VoterId,
  signature: new Uint8Array(64),
});
const after = (round: Round, chain: NamedChain, kind: Phase, ...votes: [voter: string, block: string][]): Round =>
  votes.reduce((each, [voter, block]) => {
    const imported = importVote(each, kind, vote(kind, chain, voter, block), chain);
    return 'round' in imported ? imported.round : each;
  }, round);
const weighted = (): VoterSet =>
  new VoterSet([
    ['Alice', 4],
    ['Bob', 7],
    ['Eve', 3],
  ] as [VoterId, number][]);

t.test('voter set', async (t) => {
  for (const [size, threshold] of [
    [1, 1],
    [2, 2],
    [3, 3],
    [4, 3],
    [7, 5],
    [10, 7],
    [31, 21],
    [100, 67],
  ] as const) {
    const set = new VoterSet(Array.from({ length: size }, (_, i) => [`v${i}` as VoterId, 1n] as const));
    t.equal(set.threshold, threshold, `${size} voters`);
    t.equal(set.threshold, Math.floor((2 * size) / 3) + 1);
    t.equal(set.weigh(Array.from({ length: size }, (_, i) => i).reduce(maskWith, set.emptyMask())), size);
  }
  const set = new VoterSet([
    ['b', 2],
    ['a', 1],
    ['b', 3],
    ['z', 0],
  ] as [VoterId, number][]);
  t.same(
    set.voters.map((each) => [each.id, each.weight, each.position]),
    [
      ['a', 1, 0],
      ['b', 5, 1],
    ],
  );
  t.equal(set.primary(3).id, 'b');
  t.throws(() => new VoterSet([['a' as VoterId, 0]]), { code: 'INVALID_VOTER_SET' });
  t.throws(() => new VoterSet([['a' as VoterId, 1n << 60n]]), { code: 'INVALID_VOTER_SET' });
  t.equal(set.weigh(maskUnion(maskWith(set.emptyMask(), 0), maskWith(set.emptyMask(), 1))), 6);
});

t.test('round', async (t) => {
  t.test('estimate', async (t) => {
    const chain = wide();
    let round = after(newRound(1, weighted(), chain.at('C')), chain, 'prevote', ['Alice', 'FC'], ['Bob', 'ED']);
    t.same(round.prevoteGhost, chain.at('E'));
    t.same(round.estimate, chain.at('E'));
    t.notOk(round.completable);
    round = after(round, chain, 'prevote', ['Eve', 'F']);
    t.same(round.prevoteGhost, chain.at('E'));
    t.same(round.estimate, chain.at('E'));
  });

  t.test('finalization needs prevotes too, and rises with precommits', async (t) => {
    const chain = wide();
    let round = after(newRound(1, weighted(), chain.at('C')), chain, 'precommit', ['Alice', 'FC'], ['Bob', 'ED']);
    t.equal(round.finalized, undefined);
    round = after(round, chain, 'prevote', ['Alice', 'FC'], ['Bob', 'ED'], ['Eve', 'EA']);
    t.same(round.finalized, chain.at('E'));
    round = after(round, chain, 'precommit', ['Eve', 'EA']);
    t.same(round.finalized, chain.at('EA'));
    t.notOk(round.completable, 'Alice could still turn out to have voted for EB as well');
  });

  t.test('an equivocator counts everywhere, but once', async (t) => {
    const chain = wide();
    const empty = newRound(1, weighted(), chain.at('C'));
    const first = importVote(empty, 'prevote', vote('prevote', chain, 'Eve', 'FC'), chain);
    if (first.type !== 'counted') return t.fail(first.type);
    t.equal(importVote(first.round, 'prevote', vote('prevote', chain, 'Eve', 'FC'), chain).type, 'duplicate');
    const second = importVote(first.round, 'prevote', vote('prevote', chain, 'Eve', 'ED'), chain);
    if (second.type !== 'equivocation') return t.fail(second.type);
    t.same([second.first.target, second.second.target], [chain.at('FC'), chain.at('ED')]);
    t.equal(importVote(second.round, 'prevote', vote('prevote', chain, 'Eve', 'F'), chain).type, 'redundant');
    t.equal(castBy(second.round, 'prevote', 'Eve' as VoterId)?.length, 2);
    t.equal(second.round.prevoteGhost, undefined, 'three Eves would be enough');
    const round = after(second.round, chain, 'prevote', ['Bob', 'FA']);
    t.same(round.prevoteGhost, chain.at('FA'));
  });

  t.test('strangers, and blocks beside the base', async (t) => {
    const chain = wide();
    const round = newRound(1, weighted(), chain.at('F'));
    t.equal(importVote(round, 'prevote', vote('prevote', chain, 'Mallory', 'F'), chain).type, 'notAVoter');
    for (const block of ['ED', 'E', 'C']) {
      t.equal(importVote(round, 'prevote', vote('prevote', chain, 'Bob', block), chain).type, 'outOfScope');
    }
  });
});

t.test('commits', async (t) => {
  const chain = new NamedChain().push(GENESIS, 'A', 'B', 'C', 'D').push('A', 'X');
  const voters = new VoterSet(Array.from({ length: 100 }, (_, i) => [`v${i}` as VoterId, 1] as const));
  const precommit = (id: number, block: string): Precommit => ({
    kind: 'precommit',
    target: chain.at(block),
    voter: `v${id}` as VoterId,
    signature: new Uint8Array(64),
  });
  const many = (count: number, block: string): Precommit[] =>
    Array.from({ length: count }, (_, i) => precommit(i, block));
  const valid = (block: string, precommits: Precommit[]): boolean =>
    validateCommit({ target: chain.at(block), precommits }, voters, chain).valid;

  t.notOk(valid('C', many(66, 'C')), 'one short');
  t.ok(valid('C', many(67, 'C')));
  t.notOk(valid('B', many(67, 'C')), 'the target must be the ghost, not below it');
  t.notOk(valid('C', [...many(66, 'C'), precommit(0, 'C')]), 'the same vote twice counts once');
  t.ok(valid('B', [...many(66, 'C'), precommit(66, 'B')]), 'the base is the lowest vote');
  t.notOk(valid('C', [...many(67, 'C'), precommit(70, 'X')]), 'a vote beside the base');
  const twice = validateCommit(
    { target: chain.at('C'), precommits: [...many(66, 'C'), precommit(67, 'A'), precommit(67, 'B')] },
    voters,
    chain,
  );
  t.ok(twice.valid, 'an equivocation counts for every block');
  t.equal(twice.equivocations, 1);
  const stranger = validateCommit(
    {
      target: chain.at('C'),
      precommits: [{ ...precommit(1000, 'A'), target: { hash: 'Z' as BlockId, number: 1 } }, ...many(67, 'C')],
    },
    voters,
    chain,
  );
  t.ok(stranger.valid, 'a stranger does not move the base');
  t.equal(stranger.strangers, 1);
  t.notOk(validateCommit({ target: chain.at('C'), precommits: [] }, voters, chain).valid);

  // The round counts equivocators for everything; what it shows to others must not rest on that.
  const four = new VoterSet(['a', 'b', 'c', 'd'].map((id) => [id as VoterId, 1] as const));
  let round = after(
    newRound(1, four, chain.at(GENESIS)),
    chain,
    'prevote',
    ['a', 'C'],
    ['b', 'C'],
    ['c', 'C'],
    ['d', 'C'],
  );
  round = after(round, chain, 'precommit', ['a', 'C'], ['b', 'C'], ['c', 'B'], ['d', 'X'], ['d', 'A']);
  t.same(precommitGhost(round), chain.at('C'), 'd stands for C too');
  const commit = commitOf(round, chain);
  t.same(commit?.target, chain.at('B'), 'three say so without d');
  t.equal(commit?.precommits.length, 3);
});

/** The paper's definitions, block by block and voter by voter. */
function slowly(
  chain: NamedChain,
  blocks: readonly Target[],
  voters: VoterSet,
  base: Target,
  prevotes: SignedVote[],
  precommits: SignedVote[],
) {
  const weight = (votes: SignedVote[], block: Target): number =>
    voters.voters.reduce((total, { id, weight: own }) => {
      const cast = votes.filter((each) => each.voter === id);
      const twice = new Set(cast.map((each) => each.target.hash)).size > 1;
      return total + (twice || cast.some((each) => chain.includes(block, each.target)) ? own : 0);
    }, 0);
  const everyone = (votes: SignedVote[]): number => new Set(votes.map((each) => each.voter)).size;
  const highest = (from: readonly Target[]): Target | undefined =>
    from.reduce<Target | undefined>(
      (best, each) => (best === undefined || each.number > best.number ? each : best),
      undefined,
    );
  const inScope = blocks.filter((each) => chain.includes(base, each));
  if (everyone(prevotes) < voters.threshold)
    return { ghost: undefined, estimate: undefined, finalized: undefined, completable: false };
  const g = highest(inScope.filter((each) => weight(prevotes, each) >= voters.threshold));
  if (g === undefined) return { ghost: undefined, estimate: undefined, finalized: undefined, completable: false };
  if (everyone(precommits) < voters.threshold)
    return { ghost: g, estimate: g, finalized: undefined, completable: false };
  const below = inScope.filter((each) => chain.includes(each, g));
  const finalized = highest(below.filter((each) => weight(precommits, each) >= voters.threshold));
  const equivocators = voters.voters.filter(
    ({ id }) => new Set(precommits.filter((each) => each.voter === id).map((each) => each.target.hash)).size > 1,
  ).length;
  const possible = (block: Target): boolean => {
    const given = weight(precommits, block);
    const unseen = voters.totalWeight - everyone(precommits);
    const others = everyone(precommits) - given;
    return (
      given + unseen + Math.min(others, Math.max(0, voters.totalWeight - voters.threshold - equivocators)) >=
      voters.threshold
    );
  };
  const estimate = highest(below.filter(possible));
  const higher = inScope.some((each) => each.number > g.number && chain.includes(g, each) && possible(each));
  return {
    ghost: g,
    estimate,
    finalized,
    completable: estimate !== undefined && (estimate.hash !== g.hash || !higher),
  };
}

t.test('against the definitions, on 3,000 random rounds', async (t) => {
  let completable = 0;
  for (let seed = 1; seed <= 3000; seed++) {
    const next = seeded(seed);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)]!;
    const chain = new NamedChain();
    const blocks: Target[] = [chain.at(GENESIS)];
    // Heads of a tree that is mostly one chain; blocks nobody names can always be reached by a vote on them.
    for (let i = 0; i < 10; i++) {
      const parent = next() < 0.7 ? blocks[blocks.length - 1]! : pick(blocks);
      chain.push(parent.hash, `b${i}`);
      blocks.push(chain.at(`b${i}`));
    }
    const size = 1 + Math.floor(next() * 7);
    const voters = new VoterSet(Array.from({ length: size }, (_, i) => [`v${i}` as VoterId, 1] as const));
    const faulty = Math.floor((size - 1) / 3);
    const trunk = pick(blocks.slice(4));
    const cast = (kind: Phase): SignedVote[] =>
      voters.voters.flatMap(({ id, position }) => {
        const some = (): SignedVote => vote(kind, chain, id, next() < 0.6 ? trunk.hash : pick(blocks).hash);
        if (next() < 0.1) return [];
        return position < faulty && next() < 0.5 ? [some(), some()] : [some()];
      });
    const [prevotes, precommits] = [cast('prevote'), cast('precommit')];
    const all = [...prevotes, ...precommits].map((each) => [next(), each] as const).sort(([a], [b]) => a - b);
    let round = newRound(1, voters, blocks[0]!);
    for (const [, each] of all) {
      const imported = importVote(round, each.kind as Phase, each, chain);
      if ('round' in imported) round = imported.round;
    }
    const expected = slowly(chain, blocks, voters, blocks[0]!, prevotes, precommits);
    if (expected.completable) completable++;
    const actual = {
      ghost: round.prevoteGhost,
      estimate: round.estimate,
      finalized: round.finalized,
      completable: round.completable,
    };
    if (JSON.stringify(actual) !== JSON.stringify(expected)) {
      t.same(actual, expected, `seed ${seed}`);
      return;
    }
    const commit = commitOf(round, chain);
    if (commit !== undefined && !validateCommit(commit, voters, chain).valid)
      return t.fail(`seed ${seed}: an invalid commit`);
  }
  t.ok(completable > 300, `${completable} rounds were completable`);
});
