/** What hostile peers do: identities of their own, each with one way to be a nuisance. */
import { generateKeyPair } from '@libp2p/crypto/keys';
import type { Stream } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { encodeGossip } from '../../consensus/grandpa/messages.ts';
import type { BlockId, VoterId } from '../../consensus/grandpa/votes.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { systemClock } from '../../node/ports/machine.ts';
import { createHost, type Host } from '../../p2p/host/host.ts';
import { PeerLedger } from '../../p2p/host/peer-scores.ts';
import { createLimits } from '../../p2p/limits/limits.ts';
import { announceHandshake, blockAnnounce, role, transactions } from '../../p2p/protocols/announce.ts';
import { encodeFindNode } from '../../p2p/protocols/kademlia.ts';
import { encodeLightRequest } from '../../p2p/protocols/light.ts';
import { encodeStateRequest } from '../../p2p/protocols/state.ts';
import { encodeBlockRequest } from '../../p2p/protocols/sync.ts';
import { encodeFrame, encodeLength } from '../../p2p/wire/framing.ts';
import { ROOMS, topicOf } from '../../p2p/wire/gossip.ts';
import { bytesField, varintField } from '../../p2p/wire/protobuf.ts';
import { listenFrames } from '../../p2p/wire/streams.ts';
import { concatBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { block, type Header, headerHash } from '../../runtime/primitives/header.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';

/** The node that is attacked, as anyone can see it. */
export interface Victim {
  readonly address: string;
  readonly peerId: string;
  readonly genesisHash: Hash;
  readonly voters: readonly VoterId[];
  /** Its best header, as far as it is known. */
  best(): Header;
}

const hashing = createHashing();
const HOUSE = {
  maxPeers: 4,
  mdns: false,
  privateAddresses: true,
  maxGossip: 8 * 1024 * 1024,
  isNamed: () => true,
  isNamedAddress: () => true,
} as const;
/** An attacker sets itself no limits. */
const UNLIMITED = { byAddress: false, isNamed: () => true, clock: systemClock };

/** Those of the chain, and one that nobody has joined. */
const topicsOf = (prefix: string): string[] => [...ROOMS.map((room) => topicOf(prefix, room)), 'nowhere'];

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class Identity {
  readonly host: Host;
  readonly victim: Victim;
  readonly prefix: string;
  readonly next: () => number;
  sent = 0;

  private constructor(host: Host, victim: Victim, prefix: string, next: () => number) {
    this.host = host;
    this.victim = victim;
    this.prefix = prefix;
    this.next = next;
  }

  static async connect(victim: Victim, next: () => number): Promise<Identity> {
    const prefix = `/${toHex(victim.genesisHash).slice(2)}`;
    const identity = await generateKeyPair('Ed25519');
    const host = await createHost(
      { ...HOUSE, identity, listen: [], announce: [], prefix, agent: 'hostile', topics: topicsOf(prefix) },
      new PeerLedger(() => performance.now()),
      hashing,
      createLimits(UNLIMITED),
    );
    await host.start();
    try {
      await host.dial(multiaddr(victim.address), { signal: AbortSignal.timeout(10_000) });
    } catch (problem) {
      await host.stop();
      throw problem;
    }
    return new Identity(host, victim, prefix, next);
  }

  get id(): string {
    return this.host.peerId.toString();
  }

  open(protocol: string): Promise<Stream> {
    const peer = peerIdFromString(this.victim.peerId);
    return this.host.dialProtocol(peer, `${this.prefix}/${protocol}`, { signal: AbortSignal.timeout(5_000) });
  }

  /** False when the other side does not listen any more. */
  async send(stream: Stream, bytes: Uint8Array): Promise<boolean> {
    if (stream.status !== 'open' || stream.writeStatus !== 'writable') return false;
    this.sent++;
    try {
      if (!stream.send(bytes)) await stream.onDrain({ signal: AbortSignal.timeout(20_000) });
      return true;
    } catch {
      return false;
    }
  }

  /** A stream of notifications whose handshake was answered. Rejects when it was refused: then nothing said on it is heard. */
  async greet(protocol: string): Promise<Stream> {
    const best = this.victim.best();
    const { genesisHash } = this.victim;
    const shake = encode(announceHandshake, {
      role: 'FULL',
      bestNumber: best.number,
      bestHash: headerHash(hashing, best),
      genesisHash,
    });
    const hello = await this.#shake('block-announces/1', shake);
    return protocol === 'block-announces/1' ? hello : this.#shake(protocol, encode(role, 'FULL'));
  }

  async #shake(protocol: string, shake: Uint8Array): Promise<Stream> {
    const stream = await this.open(protocol);
    const answered = new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error('no handshake came')), 20_000);
      listenFrames(stream, {
        max: 1_024,
        onFrame: () => {
          clearTimeout(late);
          resolve();
        },
        onEnd: () => {
          clearTimeout(late);
          reject(new Error('the handshake was refused'));
        },
      });
    });
    await Promise.all([answered, this.send(stream, encodeFrame(shake))]);
    return stream;
  }

  random(upTo: number): Uint8Array {
    return Uint8Array.from({ length: 1 + Math.floor(this.next() * upTo) }, () => this.next() * 256);
  }

  hash(): Hash {
    return asHash(Uint8Array.from({ length: 32 }, () => this.next() * 256));
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
    return { ...this.victim.best(), stateRoot: this.hash() };
  }
}

const NOTIFICATIONS = ['block-announces/1', 'transactions/1', 'grandpa/1'] as const;
const REQUESTS = ['sync/2', 'state/2', 'light/2', 'sync/warp', 'inference/1', 'blobs/1', 'kad'] as const;
/** More than it takes to be banned, by far. */
const OFFENCES = 400;

export interface Attack {
  /** Whether it can only end in a ban. */
  readonly offence: boolean;
  /** Rejects when it was turned away before it had done anything. */
  run(who: Identity): Promise<void>;
}

async function flood(who: Identity, stream: Stream, make: () => Uint8Array, count = OFFENCES): Promise<void> {
  for (let i = 0; i < count; i++) if (!(await who.send(stream, encodeFrame(make())))) return;
}

/** Many copies of one message, as fast as they are taken. */
async function pour(who: Identity, stream: Stream, message: Uint8Array, count: number): Promise<void> {
  const frame = encodeFrame(message);
  const together = Math.max(1, Math.min(256, Math.floor(16_384 / frame.length)));
  const many = concatBytes(...new Array<Uint8Array>(together).fill(frame));
  for (let i = 0; i < count; i += together) {
    if (!(await who.send(stream, many))) return;
    who.sent += together - 1;
  }
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

export const ATTACKS: Readonly<Record<string, Attack>> = {
  randomNotifications: {
    offence: true,
    run: async (who) => {
      const stream = await who.greet(who.pick(NOTIFICATIONS));
      await flood(who, stream, () => concatBytes(Uint8Array.of(0xff), who.random(300)));
    },
  },
  mutatedVotes: {
    offence: true,
    run: async (who) => {
      const stream = await who.greet('grandpa/1');
      const best = who.victim.best();
      const target = { hash: toHex(headerHash(hashing, best)) as BlockId, number: best.number };
      const voter = toHex(who.hash()) as VoterId;
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
      await flood(who, stream, () => {
        const target = { hash: toHex(who.hash()) as BlockId, number: who.victim.best().number + 1 };
        const precommits = who.victim.voters.map(
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
      const size = protocol === 'sync/warp' ? 20 : 200;
      await ask(who, protocol, () => concatBytes(Uint8Array.of(0x0b), who.random(size)), 24);
    },
  },
  mutatedRequests: {
    offence: false,
    run: async (who) => {
      const hash = headerHash(hashing, who.victim.best());
      const samples = {
        'sync/2': encodeBlockRequest({
          fields: { header: true, body: true, justifications: true },
          from: { type: 'hash', hash },
          direction: 'descending',
          max: 64,
        }),
        'state/2': encodeStateRequest({ block: hash, after: who.random(20), noProof: false }),
        'light/2': encodeLightRequest({
          type: 'call',
          block: hash,
          method: 'Metadata_metadata',
          data: new Uint8Array(),
        }),
        'sync/warp': who.victim.genesisHash as Uint8Array,
        'inference/1': who.random(600),
        'blobs/1': who.random(31),
        kad: encodeFindNode(who.hash()),
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
      // What goes to nobody offends nobody.
      for (let i = 0, reached = 0; i < 400 && reached < 20; i++) {
        const forged = encode(block, { header: who.forgedHeader(), extrinsics: [] });
        const { recipients } = await gossip.publish(topic, forged);
        reached += recipients.length;
        who.sent += recipients.length;
        if (recipients.length === 0) await pause(50);
        if (who.host.getConnections().length === 0) return;
      }
      if (who.sent < 10) throw new Error('the room could not be entered');
    },
  },
  forgedAnnouncements: {
    offence: true,
    run: async (who) => {
      const stream = await who.greet('block-announces/1');
      await flood(who, stream, () =>
        encode(blockAnnounce, { header: who.forgedHeader(), isBest: 1, data: new Uint8Array() }),
      );
    },
  },
  blocksFromNowhere: {
    offence: true,
    run: async (who) => {
      const stream = await who.greet('block-announces/1');
      await flood(who, stream, () => {
        const header = { ...who.forgedHeader(), parentHash: who.hash() };
        const number = header.number + Math.floor(who.next() * 1_000_000);
        return encode(blockAnnounce, { header: { ...header, number }, isBest: 1, data: new Uint8Array() });
      });
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
  unwantedRecords: {
    offence: true,
    run: async (who) => {
      // Kademlia's ADD_PROVIDER and GET_PROVIDERS, of keys that nobody knows.
      const kinds = [2, 3] as const;
      await ask(
        who,
        'kad',
        () => concatBytes(varintField(1, who.pick(kinds)), bytesField(2, who.hash()), bytesField(9, who.random(60))),
        24,
      );
    },
  },
  elsewhere: {
    offence: false,
    run: async (who) => {
      // A topic that nobody has joined.
      const { gossip } = who.host.services;
      gossip.subscribe('nowhere');
      await who.greet('block-announces/1');
      for (let i = 0; i < 200 && who.host.getConnections().length > 0; i++) {
        await gossip.publish('nowhere', who.random(5_000)).catch(() => {});
        who.sent++;
      }
    },
  },
  neverWhole: {
    offence: false,
    run: async (who) => {
      // Frames that lack their last byte, on as many streams as are let in.
      for (let i = 0; i < 80; i++) {
        const stream = await who.open(who.pick(['inference/1', 'light/2'])).catch(() => undefined);
        if (stream === undefined) break;
        await who.send(stream, concatBytes(encodeLength(1 << 20), new Uint8Array(500_000)));
      }
      await pause(500);
    },
  },
  neverRead: {
    offence: false,
    run: async (who) => {
      // Answers that are not taken.
      const hash = headerHash(hashing, who.victim.best());
      const request = encodeLightRequest({
        type: 'call',
        block: hash,
        method: 'Metadata_metadata',
        data: new Uint8Array(),
      });
      for (let i = 0; i < 40; i++) {
        const stream = await who.open('light/2').catch(() => undefined);
        if (stream === undefined) break;
        stream.pause();
        await who.send(stream, encodeFrame(request));
      }
      await pause(500);
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
      const message = encodeGossip({ type: 'neighbour', round: 1, setId: 0, finalized: 1 });
      await pour(who, stream, message, 4_500);
    },
  },
  endlessFlood: {
    offence: true,
    run: async (who) => {
      const protocol = who.pick(NOTIFICATIONS);
      const stream = await who.greet(protocol);
      const messages = {
        'block-announces/1': () =>
          encode(blockAnnounce, { header: who.victim.best(), isBest: 1, data: new Uint8Array() }),
        'transactions/1': () => encode(transactions, []),
        'grandpa/1': () => encodeGossip({ type: 'neighbour', round: 1, setId: 0, finalized: 1 }),
      };
      await pour(who, stream, messages[protocol](), 30_000);
    },
  },
};
