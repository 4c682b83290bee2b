/**
 * Two validators that only finalize together, and a crowd that does its worst to one of them over real sockets: random and
 * mutated bytes on every protocol, floods of valid and invalid messages, oversized frames, forged seals, votes and proofs,
 * streams that stay half open, many identities from one address range. `npm run soak:hostile -- --messages 1000000`.
 */
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import type { ChainSpec } from '../../node/chain-spec/chain-spec.ts';
import type { Network } from '../../p2p/network.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { header as headerCodec } from '../../runtime/primitives/header.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { until } from '../support/until.ts';
import type { CrowdOptions, News, Order } from './crowd.ts';
import { directories, type Member, startMember } from './nodes.ts';

export interface SoakOptions {
  /** That the node under attack has taken. */
  readonly messages: number;
  readonly seed: bigint;
  /** Identities at work at the same time. */
  readonly crowd: number;
  /** One of the attacks; default: all, in turn. */
  readonly only?: string | undefined;
  readonly log?: (line: string) => void;
}

export interface SoakReport {
  /** What the crowd sent, and what of it the node took before it stopped listening. */
  readonly sent: number;
  readonly messages: number;
  readonly messagesPerSecond: number;
  readonly identities: number;
  /** That were not let in, or not heard. */
  readonly refused: number;
  /** Identities that a ban was due for, and those that got one. */
  readonly offenders: number;
  readonly banned: number;
  readonly unbanned: Readonly<Record<string, number>>;
  /** Whether the honest two banned each other. */
  readonly honestBanned: boolean;
  readonly finalized: number;
  /** The longest time in which nothing became final, in milliseconds. */
  readonly longestGapMs: number;
  /** Heap and buffers outside it, beyond what they were before the first attack, at the most and at the end. */
  readonly memoryMb: { readonly most: number; readonly end: number };
  readonly mostPeers: number;
  readonly seconds: number;
}

function liveSpec(): ChainSpec {
  const spec = presetSpec('local', { slotDurationMs: 1_000, authorities: ['Alice', 'Bob'] });
  // On a live chain private addresses are one range like any other, of which few may connect.
  return { ...spec, chainType: 'Live' };
}

/** Of this thread: the two nodes without the crowd. */
const memoryMb = (): number => {
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
};

function crowdOptions({ node, address }: Member, { seed, crowd, only }: SoakOptions): CrowdOptions {
  const { blocks, runtime } = node.client;
  const { best, genesisHash } = blocks.info();
  const list = runtime.call(best.hash, 'GrandpaApi_grandpa_authorities', new Uint8Array());
  return {
    address,
    peerId: node.network.peerId(),
    genesisHash: toHex(genesisHash),
    voters: [list.slice(1, 33), list.slice(41, 73)].map(toHex),
    head: encode(headerCodec, blocks.header(best.hash)!),
    seed,
    size: crowd,
    only,
  };
}

export async function soak(options: SoakOptions): Promise<SoakReport> {
  const { messages, log = () => {} } = options;
  const spec = liveSpec();
  const homes = await directories(2);
  const members: Member[] = [];
  let worker: Worker | undefined;
  try {
    for (const [i, name] of ['Alice', 'Bob'].entries()) {
      const bootNodes = members.map((each) => each.address);
      members.push(await startMember({ name, spec, directory: homes.paths[i]!, authority: `//${name}`, bootNodes }));
    }
    const [victim, other] = members as [Member, Member];
    const network = victim.node.network as Network;
    const { blocks, events } = victim.node.client;
    const finalized = (): number => blocks.info().finalized.number;
    await until('the honest two finalize', () => finalized() >= 2, 40);
    globalThis.gc?.();
    const before = { memory: memoryMb(), received: network.traffic().received, finalized: finalized() };
    const started = performance.now();
    const taken = (): number => network.traffic().received - before.received;
    let [most, longestGapMs, mostPeers] = [0, 0, 0];
    let [lastFinal, lastAt] = [finalized(), started];
    const watch = setInterval(() => {
      most = Math.max(most, memoryMb() - before.memory);
      mostPeers = Math.max(mostPeers, network.peers().length);
      if (finalized() > lastFinal) [lastFinal, lastAt] = [finalized(), performance.now()];
      longestGapMs = Math.max(longestGapMs, performance.now() - lastAt);
    }, 250);

    worker = new Worker(new URL('./crowd.ts', import.meta.url), { workerData: crowdOptions(victim, options) });
    const mob = worker;
    const order = (what: Order): void => mob.postMessage(what);
    const unsubscribe = events.subscribe((event) => {
      if (event.type === 'imported' && event.isNewBest) {
        order({ type: 'head', header: encode(headerCodec, event.header) });
      }
    });
    let [sent, identities, refused, offenders, banned] = [0, 0, 0, 0, 0];
    const unbanned: Record<string, number> = {};
    const attacked = ({ name, sent: bySelf, banned: isOut }: Extract<News, { type: 'attacked' }>): void => {
      identities++;
      sent += bySelf;
      if (isOut !== undefined) {
        offenders++;
        if (isOut) banned++;
        else unbanned[name] = (unbanned[name] ?? 0) + 1;
      }
      if (identities % 100 !== 0) return;
      const memory = Math.round(memoryMb() - before.memory);
      const seconds = Math.round((performance.now() - started) / 1_000);
      const figures = `${taken()} messages by ${identities} identities in ${seconds} s, ${banned} of ${offenders} banned`;
      log(`${figures}, final #${finalized()}, ${memory} MiB more`);
    };
    await new Promise<void>((resolve, reject) => {
      mob.on('error', reject);
      mob.on('exit', () => resolve());
      mob.on('message', (news: News) => {
        if (news.type === 'ask') order({ type: 'isBanned', id: news.id, banned: network.isBanned(news.id) });
        else if (news.type === 'refused') refused++;
        else if (news.type === 'attacked') attacked(news);
        if (taken() >= messages) order({ type: 'stop' });
      });
    });
    const [total, seconds] = [taken(), (performance.now() - started) / 1_000];
    unsubscribe();
    const during = finalized();
    await until('finality goes on', () => finalized() >= during + 3, 60);
    globalThis.gc?.();
    clearInterval(watch);
    const theirs = other.node.network as Network;
    return {
      sent,
      messages: total,
      messagesPerSecond: Math.round(total / seconds),
      identities,
      refused,
      offenders,
      banned,
      unbanned,
      honestBanned: network.isBanned(theirs.peerId()) || theirs.isBanned(network.peerId()),
      finalized: finalized() - before.finalized,
      longestGapMs: Math.round(longestGapMs),
      memoryMb: { most: Math.round(most), end: Math.round(memoryMb() - before.memory) },
      mostPeers,
      seconds: Math.round(seconds),
    };
  } finally {
    await worker?.terminate();
    await Promise.allSettled(members.map((each) => each.stop()));
    await homes.remove();
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      messages: { type: 'string', default: '1000000' },
      seed: { type: 'string', default: '1' },
      crowd: { type: 'string', default: '6' },
      only: { type: 'string' },
    },
  });
  const report = await soak({
    messages: Number(values.messages),
    seed: BigInt(values.seed),
    crowd: Number(values.crowd),
    only: values.only,
    log: (line) => console.error(line),
  });
  console.log(JSON.stringify(report, undefined, 2));
  process.exit(report.banned === report.offenders && !report.honestBanned && report.memoryMb.most < 512 ? 0 : 1);
}
