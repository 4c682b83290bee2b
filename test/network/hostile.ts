/**
 * Two validators that only finalize together, and a crowd that does its worst to one of them over real sockets: random and
 * mutated bytes on every protocol, floods of valid and invalid messages, oversized frames, forged seals, votes and proofs,
 * streams that stay half open, many identities from one address range. `npm run soak:hostile -- --messages 1000000`.
 */
import { generateKeyPair } from '@libp2p/crypto/keys';
import type { Stream } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { encodeGossip } from '../../consensus/grandpa/messages.ts';
import type { BlockId, VoterId } from '../../consensus/grandpa/votes.ts';
import { uniforms } from '../../gpu-worker/attribution/seeded.ts';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import type { ChainSpec } from '../../node/chain-spec/chain-spec.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { encodeFrame, encodeLength } from '../../p2p/framing.ts';
import { createHost, type Host } from '../../p2p/host.ts';
import { PeerLedger } from '../../p2p/ledger.ts';
import type { Network } from '../../p2p/network.ts';
import { announceHandshake, blockAnnounce, role, transactions } from '../../p2p/protocols/announce.ts';
import { encodeLightRequest } from '../../p2p/protocols/light.ts';
import { encodeStateRequest } from '../../p2p/protocols/state.ts';
import { encodeBlockRequest } from '../../p2p/protocols/sync.ts';
import { concatBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { block, type Header } from '../../runtime/primitives/header.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { until } from '../support/until.ts';
import { directories, type Member, startMember } from './nodes.ts';

export interface SoakOptions {
  readonly messages: number;
  readonly seed: bigint;
  /** Identities at work at the same time. */
  readonly crowd: number;
  readonly log?: (line: string) => void;
}

export interface SoakReport {
  readonly messages: number;
  readonly identities: number;
  /** Identities that a ban was expected for, and those that got one. */
  readonly offenders: number;
  readonly banned: number;
  readonly unbanned: Readonly<Record<string, number>>;
  readonly finalized: number;
  /** The longest time in which nothing became final, in milliseconds. */
  readonly longestGapMs: number;
  /** Heap and buffers outside it, beyond what they were before the first attack, at the most and at the end. */
  readonly memoryMb: { readonly most: number; readonly end: number };
  readonly mostPeers: number;
  readonly seconds: number;
}

const hashing = createHashing();
const HOUSE = { maxPeers: 4, mdns: false, kad: false, privateAddresses: true, maxGossip: 8 * 1024 * 1024 } as const;

class Identity {
  readonly host: Host;
  readonly prefix: string;
  readonly victim: Member;
  readonly next: () => number;
  sent = 0;

  private constructor(host: Host, prefix: string, victim: Member, next: () => number) {
    this.host = host;
    this.prefix = prefix;
    this.victim = victim;
    this.next = next;
  }

  static async connect(victim: Member, next: () => number): Promise<Identity> {
    const prefix = `/${toHex(victim.node.client.blocks.info().genesisHash).slice(2)}`;
    const ledger = new PeerLedger(() => performance.now());
    const identity = await generateKeyPair('Ed25519');
    const host = await createHost(
      { ...HOUSE, identity, listen: [], announce: [], prefix, agent: 'hostile' },
      ledger,
      hashing,
    );
    await host.start();
    await host.dial(multiaddr(victim.address), { signal: AbortSignal.timeout(10_000) });
    return new Identity(host, prefix, victim, next);
  }

  get id(): string {
    return this.host.peerId.toString();
  }

  open(protocol: string): Promise<Stream> {
    const peer = peerIdFromString(this.victim.node.network.peerId());
    return this.host.dialProtocol(peer, `${this.prefix}/${protocol}`, { signal: AbortSignal.timeout(5_000) });
  }

  /** False when the other side does not listen any more. */
  async send(stream: Stream, bytes: Uint8Array): Promise<boolean> {
    if (stream.status !== 'open' || stream.writeStatus !== 'writable') return false;
    this.sent++;
    try {
      if (!stream.send(bytes)) await stream.onDrain({ signal: AbortSignal.timeout(2_000) });
      return true;
    } catch {
      return false;
    }
  }

  /** A stream of notifications after a proper handshake. */
  async greet(protocol: string): Promise<Stream> {
    const { genesisHash, best } = this.victim.node.client.blocks.info();
    const hello = await this.open('block-announces/1');
    const shake = encode(announceHandshake, {
      role: 'FULL',
      bestNumber: best.number,
      bestHash: best.hash,
      genesisHash,
    });
    await this.send(hello, encodeFrame(shake));
    // What is refused because it came too early would prove nothing.
    const network = this.victim.node.network;
    for (let i = 0; i < 100 && !network.peers().some(({ peerId }) => peerId === this.id); i++) await pause(50);
    if (protocol === 'block-announces/1') return hello;
    const stream = await this.open(protocol);
    await this.send(stream, encodeFrame(encode(role, 'FULL')));
    return stream;
  }

  random(upTo: number): Uint8Array {
    return Uint8Array.from({ length: 1 + Math.floor(this.next() * upTo) }, () => this.next() * 256);
  }

  mutated(bytes: Uint8Array): Uint8Array {
    // A `Buffer` would give a view.
    const out = Uint8Array.from(bytes).slice(
      0,
      this.next() < 0.3 ? 1 + Math.floor(this.next() * bytes.length) : undefined,
    );
    for (let i = 0; i < 3; i++) out[Math.floor(this.next() * out.length)] = this.next() * 256;
    return out;
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.next() * from.length)]!;
  }

  /** The victim's best header with another content under the same seal. */
  forgedHeader(): Header {
    const { blocks } = this.victim.node.client;
    const header = blocks.header(blocks.info().best.hash)!;
    return { ...header, stateRoot: asHash(Uint8Array.from({ length: 32 }, () => this.next() * 256)) };
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const NOTIFICATIONS = ['block-announces/1', 'transactions/1', 'grandpa/1'] as const;
const REQUESTS = ['sync/2', 'state/2', 'light/2', 'sync/warp', 'inference/1', 'blobs/1'] as const;
const BURST = 400;

interface Attack {
  /** Whether it can only end in a ban. */
  readonly offence: boolean;
  run(who: Identity): Promise<void>;
}

async function flood(who: Identity, stream: Stream, make: () => Uint8Array, count = BURST): Promise<void> {
  for (let i = 0; i < count; i++) if (!(await who.send(stream, encodeFrame(make())))) return;
}

/** Requests one after the other, each in a stream of its own. */
async function ask(who: Identity, protocol: string, make: () => Uint8Array, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const stream = await who.open(protocol);
    const sent = await who.send(stream, encodeFrame(make()));
    if (!sent) return;
    await Promise.race([stream.close().catch(() => {}), pause(200)]);
  }
}

const ATTACKS: Readonly<Record<string, Attack>> = {
  randomNotifications: {
    offence: true,
    run: async (who) => {
      const stream = await who.greet(who.pick(['block-announces/1', 'grandpa/1', 'transactions/1']));
      await flood(who, stream, () => concatBytes(Uint8Array.of(0xff), who.random(300)));
    },
  },
  mutatedVotes: {
    offence: true,
    run: async (who) => {
      const stream = await who.greet('grandpa/1');
      const { hash, number } = who.victim.node.client.blocks.info().best;
      const target = { hash: toHex(hash) as BlockId, number };
      const voter = toHex(Uint8Array.from({ length: 32 }, () => who.next() * 256)) as VoterId;
      await flood(who, stream, () => {
        const vote = { kind: 'prevote', target, voter, signature: new Uint8Array(64).fill(who.next() * 256) } as const;
        return who.mutated(encodeGossip({ type: 'vote', round: 1 + Math.floor(who.next() * 50), setId: 0, vote }));
      });
    },
  },
  forgedCommits: {
    offence: true,
    run: async (who) => {
      const stream = await who.greet('grandpa/1');
      const { blocks, runtime } = who.victim.node.client;
      const { best } = blocks.info();
      const list = runtime.call(best.hash, 'GrandpaApi_grandpa_authorities', new Uint8Array());
      const voters = [list.slice(1, 33), list.slice(41, 73)].map((key) => toHex(key) as VoterId);
      await flood(who, stream, () => {
        const target = {
          hash: toHex(asHash(Uint8Array.from({ length: 32 }, () => who.next() * 256))) as BlockId,
          number: best.number + 1,
        };
        const precommits = voters.map(
          (voter) => ({ kind: 'precommit', target, voter, signature: new Uint8Array(64).fill(1) }) as const,
        );
        return encodeGossip({ type: 'commit', round: 5, setId: 0, commit: { target, precommits } });
      });
    },
  },
  malformedRequests: {
    offence: true,
    run: async (who) => {
      const protocol = who.pick(['sync/2', 'state/2', 'light/2', 'sync/warp'] as const);
      await ask(
        who,
        protocol,
        () => concatBytes(Uint8Array.of(0x0b), who.random(protocol === 'sync/warp' ? 20 : 200)),
        24,
      );
    },
  },
  mutatedRequests: {
    offence: false,
    run: async (who) => {
      const { blocks } = who.victim.node.client;
      const { best } = blocks.info();
      const samples = {
        'sync/2': encodeBlockRequest({
          fields: { header: true, body: true, justifications: true },
          from: { type: 'hash', hash: best.hash },
          direction: 'descending',
          max: 64,
        }),
        'state/2': encodeStateRequest({ block: best.hash, after: who.random(20), noProof: false }),
        'light/2': encodeLightRequest({
          type: 'call',
          block: best.hash,
          method: 'Metadata_metadata',
          data: new Uint8Array(),
        }),
        'sync/warp': blocks.info().genesisHash as Uint8Array,
        'inference/1': who.random(600),
        'blobs/1': who.random(31),
      };
      const protocol = who.pick(REQUESTS);
      await ask(who, protocol, () => (who.next() < 0.3 ? samples[protocol] : who.mutated(samples[protocol])), 16);
    },
  },
  oversized: {
    offence: true,
    run: async (who) => {
      for (let i = 0; i < 8; i++) {
        const stream =
          who.next() < 0.5
            ? await who.greet(who.pick(NOTIFICATIONS))
            : await who.open(who.pick(['sync/2', 'state/2', 'light/2', 'sync/warp']));
        await who.send(stream, concatBytes(encodeLength(2 ** 31), new Uint8Array(60_000)));
        await pause(20);
      }
    },
  },
  forgedSeals: {
    offence: true,
    run: async (who) => {
      const topic = `${who.prefix}/blocks/1`;
      const { gossip } = who.host.services;
      gossip.subscribe(topic);
      await who.greet('block-announces/1');
      for (let i = 0; i < 100 && gossip.getSubscribers(topic).length === 0; i++) await pause(100);
      if (gossip.getSubscribers(topic).length === 0) return;
      for (let i = 0; i < 40; i++) {
        who.sent++;
        await gossip.publish(topic, encode(block, { header: who.forgedHeader(), extrinsics: [] })).catch(() => {});
      }
      await pause(300);
    },
  },
  madeUpBlocks: {
    offence: false,
    run: async (who) => {
      const stream = await who.greet('block-announces/1');
      await flood(who, stream, () =>
        encode(blockAnnounce, { header: who.forgedHeader(), isBest: 1, data: new Uint8Array() }),
      );
    },
  },
  hollowTransactions: {
    offence: true,
    run: async (who) => {
      const stream = await who.greet('transactions/1');
      await flood(who, stream, () =>
        encode(
          transactions,
          Array.from({ length: 20 }, () => who.random(120)),
        ),
      );
    },
  },
  halfOpen: {
    offence: false,
    run: async (who) => {
      // Streams that say nothing, or a byte at a time.
      const streams: Stream[] = [];
      for (let i = 0; i < 40; i++) {
        const stream = await who.open(who.pick([...NOTIFICATIONS, ...REQUESTS])).catch(() => undefined);
        if (stream !== undefined) streams.push(stream);
      }
      for (let i = 0; i < 10; i++) {
        for (const stream of streams) if (who.next() < 0.5) await who.send(stream, Uint8Array.of(0x80));
        await pause(50);
      }
    },
  },
  validFlood: {
    offence: false,
    run: async (who) => {
      const stream = await who.greet('grandpa/1');
      await flood(who, stream, () => encodeGossip({ type: 'neighbour', round: 1, setId: 0, finalized: 1 }), BURST * 4);
    },
  },
};

function liveSpec(): ChainSpec {
  const spec = presetSpec('local', { slotDurationMs: 1_000, authorities: ['Alice', 'Bob'] });
  // On a live chain private addresses are one range like any other, of which few may connect.
  return { ...spec, chainType: 'Live' };
}

const memoryMb = (): number => {
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
};

export async function soak({ messages, seed, crowd, log = () => {} }: SoakOptions): Promise<SoakReport> {
  const spec = liveSpec();
  const homes = await directories(2);
  const members: Member[] = [];
  const started = performance.now();
  try {
    for (const [i, name] of ['Alice', 'Bob'].entries()) {
      const bootNodes = members.map((each) => each.address);
      members.push(await startMember({ name, spec, directory: homes.paths[i]!, authority: `//${name}`, bootNodes }));
    }
    const victim = members[0]!;
    const network = victim.node.network as Network;
    const finalized = (): number => victim.node.client.blocks.info().finalized.number;
    await until('the honest two finalize', () => finalized() >= 2, 40);
    globalThis.gc?.();
    const before = memoryMb();
    const first = finalized();
    let [most, longestGapMs, mostPeers] = [0, 0, 0];
    let [lastFinal, lastAt] = [first, performance.now()];
    const watch = setInterval(() => {
      most = Math.max(most, memoryMb() - before);
      mostPeers = Math.max(mostPeers, network.peers().length);
      if (finalized() > lastFinal) [lastFinal, lastAt] = [finalized(), performance.now()];
      longestGapMs = Math.max(longestGapMs, performance.now() - lastAt);
    }, 250);

    const next = uniforms(seed);
    const names = Object.keys(ATTACKS);
    let [sent, identities, offenders, banned, turn, refused] = [0, 0, 0, 0, 0, 0];
    const unbanned: Record<string, number> = {};
    const attacker = async (): Promise<void> => {
      while (sent < messages) {
        const name = names[turn++ % names.length]!;
        const attack = ATTACKS[name]!;
        let who: Identity;
        try {
          who = await Identity.connect(victim, next);
        } catch {
          // The address range is full.
          refused++;
          await pause(200);
          continue;
        }
        identities++;
        try {
          await attack.run(who);
        } catch {
          // It was thrown out in the middle of it.
        }
        sent += who.sent;
        if (attack.offence && who.sent > 3) {
          offenders++;
          for (let i = 0; i < 200 && !network.isBanned(who.id); i++) await pause(50);
          if (network.isBanned(who.id)) banned++;
          else unbanned[name] = (unbanned[name] ?? 0) + 1;
        }
        await who.host.stop();
        if (identities % 50 === 0)
          log(
            `${sent} messages by ${identities} identities, ${banned} of ${offenders} banned, final #${finalized()}, ${Math.round(memoryMb() - before)} MiB more`,
          );
      }
    };
    await Promise.all(Array.from({ length: crowd }, attacker));
    const during = finalized();
    await until('finality goes on', () => finalized() >= during + 3, 60);
    await pause(1_000);
    globalThis.gc?.();
    clearInterval(watch);
    log(`${refused} connections were refused`);
    return {
      messages: sent,
      identities,
      offenders,
      banned,
      unbanned,
      finalized: finalized() - first,
      longestGapMs: Math.round(longestGapMs),
      memoryMb: { most: Math.round(most), end: Math.round(memoryMb() - before) },
      mostPeers,
      seconds: Math.round((performance.now() - started) / 1_000),
    };
  } finally {
    await Promise.allSettled(members.map((each) => each.stop()));
    await homes.remove();
  }
}

if (import.meta.main) {
  const at = process.argv.indexOf('--messages');
  const messages = at < 0 ? 1_000_000 : Number(process.argv[at + 1]);
  const seedAt = process.argv.indexOf('--seed');
  const seed = seedAt < 0 ? 1n : BigInt(process.argv[seedAt + 1]!);
  const report = await soak({ messages, seed, crowd: 6, log: (line) => console.error(line) });
  console.log(JSON.stringify(report, undefined, 2));
  process.exit(report.banned === report.offenders && report.memoryMb.most < 512 ? 0 : 1);
}
