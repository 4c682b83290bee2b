/**
 * Blocks that were voted for, with the votes for each and everything above it (GHOST). Only blocks with votes are nodes; the
 * blocks between a node and the node below it are kept as an edge, so that the size follows the votes and not the chain.
 * A graph is a value: inserting gives a new one that shares what did not change.
 */
import type { Ancestry, BlockId, Target } from './votes.ts';

/** How votes add up. Adding a vote twice must be harmless only if the caller does so. */
export interface Tally<V> {
  readonly none: V;
  readonly add: (a: V, b: V) => V;
}

interface Node<V> {
  readonly number: number;
  /** Blocks below, newest first; the last one is the node below. Empty at the base. */
  readonly edge: readonly BlockId[];
  /** Nodes directly above. */
  readonly above: readonly BlockId[];
  /** Votes for this block and everything above it. */
  readonly votes: V;
}

export interface VoteGraph<V> {
  readonly tally: Tally<V>;
  readonly base: Target;
  readonly nodes: ReadonlyMap<BlockId, Node<V>>;
}

export const voteGraph = <V>(base: Target, tally: Tally<V>): VoteGraph<V> => ({
  tally,
  base,
  nodes: new Map([[base.hash, { number: base.number, edge: [], above: [], votes: tally.none }]]),
});

/** The block of that height on a node's edge. */
const onEdge = <V>(node: Node<V>, number: number): BlockId | undefined => node.edge[node.number - number - 1];

const nodeBelow = <V>(node: Node<V>): BlockId | undefined => node.edge[node.edge.length - 1];

/** Nodes that have the block on their edge. */
function containing<V>(graph: VoteGraph<V>, block: Target): BlockId[] {
  const out: BlockId[] = [];
  for (const [id, node] of graph.nodes) {
    if (node.number > block.number && onEdge(node, block.number) === block.hash) out.push(id);
  }
  return out;
}

/** The nodes next above a block, whether it is a node itself or lies on edges; undefined when it is not in the graph. */
function nextAbove<V>(graph: VoteGraph<V>, block: Target): readonly BlockId[] | undefined {
  const node = graph.nodes.get(block.hash);
  if (node !== undefined) return node.above;
  const found = containing(graph, block);
  return found.length === 0 ? undefined : found;
}

/** Votes for a block and everything above it; undefined when it is not in the graph. */
export function votesFor<V>(graph: VoteGraph<V>, block: Target): V | undefined {
  const node = graph.nodes.get(block.hash);
  if (node !== undefined) return node.votes;
  const found = containing(graph, block);
  if (found.length === 0) return undefined;
  return found.reduce((sum, id) => graph.tally.add(sum, graph.nodes.get(id)!.votes), graph.tally.none);
}

/** Adds a vote; undefined when the block does not descend from the base. */
export function insertVote<V>(graph: VoteGraph<V>, block: Target, vote: V, chain: Ancestry): VoteGraph<V> | undefined {
  const nodes = new Map(graph.nodes);
  if (!nodes.has(block.hash)) {
    const above = containing(graph, block);
    const introduced = above.length > 0 ? split(nodes, graph.tally, block, above) : append(nodes, graph, block, chain);
    if (!introduced) return undefined;
  }
  for (let id: BlockId | undefined = block.hash; id !== undefined; ) {
    const node: Node<V> = nodes.get(id)!;
    nodes.set(id, { ...node, votes: graph.tally.add(node.votes, vote) });
    id = nodeBelow(node);
  }
  return { ...graph, nodes };
}

/** Makes a block on the edges of `above` a node of its own. */
function split<V>(nodes: Map<BlockId, Node<V>>, tally: Tally<V>, block: Target, above: readonly BlockId[]): boolean {
  let votes = tally.none;
  let edge: readonly BlockId[] = [];
  for (const id of above) {
    const node = nodes.get(id)!;
    const cut = node.number - block.number;
    edge = node.edge.slice(cut);
    votes = tally.add(votes, node.votes);
    nodes.set(id, { ...node, edge: node.edge.slice(0, cut) });
  }
  nodes.set(block.hash, { number: block.number, edge, above, votes });
  const below = edge[edge.length - 1]!;
  const node = nodes.get(below)!;
  nodes.set(below, { ...node, above: [...node.above.filter((id) => !above.includes(id)), block.hash] });
  return true;
}

function append<V>(nodes: Map<BlockId, Node<V>>, graph: VoteGraph<V>, block: Target, chain: Ancestry): boolean {
  const between = chain.between(graph.base, block);
  if (between === undefined) return false;
  const edge: BlockId[] = [];
  for (const id of [...between, graph.base.hash]) {
    edge.push(id);
    const node = nodes.get(id);
    if (node === undefined) continue;
    nodes.set(id, { ...node, above: [...node.above, block.hash] });
    break;
  }
  nodes.set(block.hash, { number: block.number, edge, above: [], votes: graph.tally.none });
  return true;
}

/** Lowers the base along `ancestry` (blocks below the base, newest first), for votes that lie below it. */
export function lowerBase<V>(graph: VoteGraph<V>, ancestry: readonly BlockId[]): VoteGraph<V> {
  const hash = ancestry[ancestry.length - 1];
  if (hash === undefined || ancestry.length > graph.base.number) return graph;
  const nodes = new Map(graph.nodes);
  const old = nodes.get(graph.base.hash)!;
  const base: Target = { hash, number: graph.base.number - ancestry.length };
  nodes.set(graph.base.hash, { ...old, edge: ancestry });
  nodes.set(hash, { number: base.number, edge: [], above: [graph.base.hash], votes: old.votes });
  return { ...graph, base, nodes };
}

/** The highest block at or below `from` whose votes satisfy `enough`. */
export function highestBelow<V>(
  graph: VoteGraph<V>,
  from: Target,
  enough: (votes: V, block: Target) => boolean,
): Target | undefined {
  let block = from;
  for (;;) {
    const node = graph.nodes.get(block.hash);
    let parent: BlockId | undefined;
    if (node !== undefined) {
      if (enough(node.votes, block)) return block;
      parent = node.edge[0];
    } else {
      const [first, ...others] = containing(graph, block).map((id) => graph.nodes.get(id)!);
      if (first === undefined) return undefined;
      const votes = others.reduce((sum, each) => graph.tally.add(sum, each.votes), first.votes);
      if (enough(votes, block)) return block;
      parent = onEdge(first, block.number - 1);
    }
    if (parent === undefined) return undefined;
    block = { hash: parent, number: block.number - 1 };
  }
}

/**
 * The highest block at or above `from` (the base if that is undefined or not in the graph) whose votes satisfy `enough`;
 * undefined when those of `from` do not. `enough` should hold for at most one of several forks: where it holds for more,
 * the first one voted for is taken.
 */
export function ghost<V>(
  graph: VoteGraph<V>,
  from: Target | undefined,
  enough: (votes: V) => boolean,
): Target | undefined {
  let block = from ?? graph.base;
  if (votesFor(graph, block) === undefined) block = graph.base;
  if (!enough(votesFor(graph, block)!)) return undefined;
  let next: readonly BlockId[] = nextAbove(graph, block)!;
  for (;;) {
    const id: BlockId | undefined = next.find((each) => enough(graph.nodes.get(each)!.votes));
    if (id === undefined) break;
    const node: Node<V> = graph.nodes.get(id)!;
    block = { hash: id, number: node.number };
    next = node.above;
  }
  // No single node above has enough: several may still share edges, and have enough together where these part.
  let candidates = next.map((id) => ({ id, node: graph.nodes.get(id)! }));
  while (candidates.length > 1) {
    const number = block.number + 1;
    const groups = new Map<BlockId, { votes: V; members: typeof candidates }>();
    for (const each of candidates) {
      const at = onEdge(each.node, number);
      if (at === undefined) continue;
      const group = groups.get(at);
      if (group === undefined) groups.set(at, { votes: each.node.votes, members: [each] });
      else {
        group.votes = graph.tally.add(group.votes, each.node.votes);
        group.members.push(each);
      }
    }
    const heavy = [...groups].find(([, group]) => enough(group.votes));
    if (heavy === undefined) break;
    block = { hash: heavy[0], number };
    candidates = heavy[1].members;
  }
  return block;
}
