/**
 * Blobs between nodes: records, adapters and features go to whoever keeps them for the ledger. A blob is taken in only when
 * the chain has committed to its hash and size, and is hashed while it streams in, so it does not matter who sends it.
 */
import type { Connection, Stream } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { LRUCache } from 'lru-cache';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode, struct, u64, variants } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { type Hash, hash } from '../../runtime/primitives/types.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { Budget } from '../limits/budget.ts';
import { Places } from '../limits/places.ts';
import { pause } from '../sync/pause.ts';
import { Pace } from '../wire/pace.ts';
import { listenFrames, sendFrame } from '../wire/streams.ts';
import type { Wire } from '../wire/wire.ts';

/** The node's blobs, as far as the network needs them. */
export interface KeptBlobs {
  has(blob: Uint8Array): boolean;
  /** Whether the chain has committed to it. */
  expects(blob: Hash): boolean;
  size(blob: Uint8Array): number | undefined;
  /** Hashes and checks size while it takes the bytes in; rejects with an error that has a `code`. */
  put(blob: Hash, body: AsyncIterable<Uint8Array>, size: number): Promise<void>;
  stream(blob: Uint8Array): AsyncIterable<Uint8Array>;
}

export interface BlobPorts {
  readonly blobs: KeptBlobs;
  /** All that the chain has committed to. */
  readonly committed: () => Iterable<Hash>;
  /** Whether this node keeps all of it, as validators do; others fetch what they need. */
  readonly replicate: boolean;
}

/** A request is a blob's hash; the first frame back says whether it is there, the others hold its bytes. */
const found = variants({ Missing: null, Found: struct({ size: u64 }) });

const CHUNK = 64 * 1024;
const CONNECT_MS = 10_000;
/** A blob has to come, and to be taken, at least so fast. */
const PACE = { graceMs: 8_000, bytesPerSecond: 64 * 1024 } as const;
/** When a transfer has not ended after so long, another peer is asked beside it: the first whole one counts. */
const SECOND_MS = 5_000;
const MAX_SOURCES = 3;
const LOOK_MS = 3_000;
const AGAIN_MS = 30_000;
/** Blobs on their way out: at any time one piece of each lies in memory. */
const UPLOADS = { all: 32, peer: 4 } as const;
/** Blobs that are fetched at a time for the ledger's sake. */
const AT_ONCE = 8;
/** Requests of one peer, of a group and of all. */
const RATES = {
  peer: { perSecond: 20, burst: 200 },
  group: { perSecond: 40, burst: 400 },
  all: { perSecond: 160, burst: 1_600 },
} as const;

export class BlobExchange {
  readonly name = 'blobs';
  readonly #wire: Wire;
  readonly #ports: BlobPorts;
  readonly #protocol: string;
  readonly #fetching = new Map<string, Promise<boolean>>();
  readonly #notBefore = new Map<string, number>();
  /** When peers last let a transfer run dry: they are asked last. */
  readonly #slow = new LRUCache<PeerId, number>({ max: 1_024 });
  readonly #rates: Budget;
  readonly #uploads: Places;

  constructor(wire: Wire, ports: BlobPorts) {
    this.#wire = wire;
    this.#ports = ports;
    this.#protocol = `${wire.prefix}/blobs/1`;
    const now = (): number => wire.clock.monotonic();
    const groupOf = (peer: PeerId): string => wire.limits.origins.groupOf(peer);
    this.#rates = new Budget(now, groupOf, RATES);
    this.#uploads = new Places(UPLOADS, groupOf);
  }

  async register(): Promise<void> {
    await this.#wire.host.handle(this.#protocol, (stream, connection) => this.#serve(stream, connection), {
      maxInboundStreams: 8,
      maxOutboundStreams: 8,
    });
  }

  /** Keeps what the chain has committed to, when that is this node's business. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, isMajorSyncing } = this.#wire;
    while (!signal.aborted) {
      if (this.#ports.replicate && !isMajorSyncing()) await this.#replicate(signal);
      await pause(clock, LOOK_MS, signal);
    }
  }

  async #replicate(signal: AbortSignal): Promise<void> {
    const { blobs, committed } = this.#ports;
    const now = this.#wire.clock.monotonic();
    const wanted: Hash[] = [];
    for (const blob of committed()) {
      if (!blobs.has(blob) && (this.#notBefore.get(toHex(blob)) ?? 0) <= now) wanted.push(blob);
    }
    const worker = async (): Promise<void> => {
      for (let blob = wanted.shift(); blob !== undefined && !signal.aborted; blob = wanted.shift()) {
        if (await this.fetch(blob, signal)) this.#notBefore.delete(toHex(blob));
        else this.#notBefore.set(toHex(blob), this.#wire.clock.monotonic() + AGAIN_MS);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    // What the chain has dropped meanwhile is not remembered.
    if (this.#notBefore.size > 10_000) this.#notBefore.clear();
  }

  /** Whether the blob is here now. */
  fetch(blob: Hash, signal: AbortSignal): Promise<boolean> {
    const { blobs } = this.#ports;
    if (blobs.has(blob)) return Promise.resolve(true);
    if (!blobs.expects(blob)) return Promise.resolve(false);
    const key = toHex(blob);
    const before = this.#fetching.get(key);
    if (before !== undefined) return before;
    const work = this.#fetch(blob, signal).finally(() => this.#fetching.delete(key));
    this.#fetching.set(key, work);
    return work;
  }

  /** Peers are asked one after the other, and another one as soon as the one before takes long. */
  async #fetch(blob: Hash, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#wire;
    const left = this.#inOrder();
    const done = new AbortController();
    const until = AbortSignal.any([signal, done.signal]);
    const running = new Set<Promise<Outcome>>();
    try {
      for (;;) {
        const peer = running.size < MAX_SOURCES ? left.shift() : undefined;
        if (peer !== undefined) {
          const attempt: Promise<Outcome> = this.#attempt(peer, blob, until).finally(() => running.delete(attempt));
          running.add(attempt);
        }
        if (running.size === 0 || signal.aborted) break;
        const patience = new AbortController();
        const next =
          left.length > 0 && running.size < MAX_SOURCES
            ? [pause(clock, SECOND_MS, patience.signal).then(() => 'late' as const)]
            : [];
        const outcome = await Promise.race([...running, ...next]);
        patience.abort();
        if (outcome === 'came') return true;
        // Two copies of a blob on their way can be one too many for the store.
        if (outcome === 'useless' && running.size === 0) break;
      }
      return this.#ports.blobs.has(blob);
    } finally {
      done.abort();
      await Promise.all(running);
    }
  }

  /** All peers, in another order each time, those that were slow lately at the end. */
  #inOrder(): PeerId[] {
    const rank = new Map(this.#wire.peers().map((peer) => [peer, (this.#slow.get(peer) ?? 0) + Math.random()]));
    return [...rank].sort((a, b) => a[1] - b[1]).map(([peer]) => peer);
  }

  async #attempt(peer: PeerId, blob: Hash, signal: AbortSignal): Promise<Outcome> {
    const { charge, clock, log } = this.#wire;
    try {
      return (await this.#from(peer, blob, signal)) ? 'came' : 'missing';
    } catch (problem) {
      if (signal.aborted) return 'missing';
      const { code } = problem as { readonly code?: string };
      log('debug', 'a blob did not come', { peer, blob: toHex(blob), problem: String(problem) });
      if (code === 'WRONG_HASH' || code === 'TOO_LARGE' || code === 'MALFORMED') {
        charge(peer, FEE.badResponse, `a blob that is not what was asked for: ${code}`);
      } else if (code === 'TRUNCATED' || code === 'TIMEOUT') {
        this.#slow.set(peer, clock.monotonic());
        charge(peer, FEE.brokenPromise, 'a blob that broke off, or came too slowly');
      }
      // The chain does not know it, or there is no room: nobody else can help.
      return code === 'NOT_EXPECTED' || code === 'STORE_FULL' ? 'useless' : 'missing';
    }
  }

  async #from(peer: PeerId, blob: Hash, signal: AbortSignal): Promise<boolean> {
    const { clock, host } = this.#wire;
    const until = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_MS)]);
    const stream = await host.dialProtocol(peerIdFromString(peer), this.#protocol, { signal: until });
    const pace = new Pace(clock, PACE);
    const frames = new Frames(stream, peer, this.#wire, AbortSignal.any([signal, pace.signal]), (bytes) =>
      pace.moved(bytes),
    );
    try {
      await sendFrame(stream, blob, until);
      const first = await frames.next();
      if (first === undefined) return false;
      const answer = decode(found, first);
      if (answer.type === 'Missing') return false;
      await this.#ports.blobs.put(blob, frames, Number(answer.value.size));
      return true;
    } catch (problem) {
      if (problem instanceof ScaleError) throw new NetworkError('MALFORMED', problem.message, { cause: problem });
      throw problem;
    } finally {
      pace.end();
      stream.abort(new NetworkError('CLOSED', 'the blob came, or did not'));
    }
  }

  #serve(stream: Stream, connection: Connection): void {
    const { charge, clock, limits, log } = this.#wire;
    const { blobs } = this.#ports;
    const peer = connection.remotePeer.toString();
    let asked = false;
    const gone = new AbortController();
    stream.addEventListener('close', () => gone.abort());
    const late = setTimeout(() => {
      if (!asked) stream.abort(new NetworkError('TIMEOUT', 'nothing was asked'));
    }, CONNECT_MS);
    late.unref();
    const answer = async (request: Uint8Array): Promise<void> => {
      const blob = decode(hash, request);
      const size = blobs.size(blob);
      const vacate = size === undefined ? undefined : this.#uploads.take(peer, () => gone.abort());
      const pace = new Pace(clock, PACE);
      try {
        const send = (frame: Uint8Array): Promise<void> => sendFrame(stream, frame, gone.signal, pace);
        if (size === undefined || vacate === undefined) {
          await send(encode(found, { type: 'Missing' } as never));
          return;
        }
        await send(encode(found, { type: 'Found', value: { size: BigInt(size) } }));
        for await (const part of blobs.stream(blob)) {
          for (let at = 0; at < part.length; at += CHUNK) await send(part.subarray(at, at + CHUNK));
        }
      } finally {
        pace.end();
        vacate?.();
      }
    };
    listenFrames(stream, {
      max: 32,
      account: { peer, held: limits.held.incoming },
      onFrame: async (frame) => {
        clearTimeout(late);
        const allowed = asked ? 'peer' : this.#rates.take(peer);
        if (allowed === 'peer') charge(peer, FEE.tooFast, 'too many requests for blobs');
        if (allowed !== 'taken') {
          stream.abort(new NetworkError('BUSY', 'too many requests'));
          return;
        }
        asked = true;
        try {
          await answer(frame);
          await stream.close();
        } catch (problem) {
          if (problem instanceof ScaleError) charge(peer, FEE.malformed, 'a malformed request for a blob');
          log('debug', 'a blob was not sent', { peer, problem: String(problem) });
          stream.abort(problem as Error);
        }
      },
      onEnd: (problem) => {
        clearTimeout(late);
        if (problem instanceof NetworkError && problem.code !== 'CLOSED') charge(peer, FEE.malformed, problem.message);
        if (!asked) stream.abort(new NetworkError('CLOSED', 'nothing was asked'));
      },
    });
  }
}

/** `useless`: nobody can help. `missing`: this peer cannot. */
type Outcome = 'came' | 'missing' | 'useless' | 'late';

/** The frames of a stream, one at a time: it is read no faster than they are taken. */
class Frames implements AsyncIterable<Uint8Array> {
  readonly #signal: AbortSignal;
  #offer: { readonly frame: Uint8Array; readonly taken: () => void } | undefined;
  #ended = false;
  #problem: Error | undefined;
  #wake: () => void = () => {};

  /** `came`: is told of bytes as they come. */
  constructor(stream: Stream, peer: PeerId, { limits }: Wire, signal: AbortSignal, came: (bytes: number) => void) {
    this.#signal = signal;
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    listenFrames(stream, {
      max: CHUNK + 16,
      account: { peer, held: limits.held.answers },
      onFrame: (frame) => {
        came(frame.length);
        return new Promise<void>((taken) => {
          if (this.#ended) taken();
          this.#offer = { frame, taken };
          this.#wake();
        });
      },
      onEnd: (problem) => {
        this.#ended = true;
        this.#problem = problem;
        this.#wake();
      },
    });
  }

  /** Undefined at the end. Rejects with {@link NetworkError} when the stream breaks, or with the signal's reason. */
  async next(): Promise<Uint8Array | undefined> {
    while (this.#offer === undefined) {
      if (this.#problem !== undefined) throw this.#problem;
      if (this.#ended) return undefined;
      if (this.#signal.aborted) throw this.#signal.reason;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const { frame, taken } = this.#offer;
    this.#offer = undefined;
    taken();
    return frame;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (let frame = await this.next(); frame !== undefined; frame = await this.next()) yield frame;
  }
}
