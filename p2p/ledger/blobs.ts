/**
 * Blobs between nodes: records, adapters and features go to whoever keeps them for the ledger. A blob is taken in only when
 * the chain has committed to its hash and size, and is hashed while it streams in, so it does not matter who sends it.
 */
import type { Connection, Stream } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode, struct, u64, variants } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { type Hash, hash } from '../../runtime/primitives/types.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId, RateLimit } from '../host/peer-scores.ts';
import { pause } from '../sync/pause.ts';
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
/** The other side sends nothing for so long: it is given up. */
const IDLE_MS = 20_000;
const LOOK_MS = 3_000;
const AGAIN_MS = 30_000;
const MAX_UPLOADS = 16;
const AT_ONCE = 2;

export class BlobExchange {
  readonly name = 'blobs';
  readonly #wire: Wire;
  readonly #ports: BlobPorts;
  readonly #protocol: string;
  readonly #fetching = new Map<string, Promise<boolean>>();
  readonly #notBefore = new Map<string, number>();
  readonly #rates = new Map<PeerId, RateLimit>();
  #uploads = 0;

  constructor(wire: Wire, ports: BlobPorts) {
    this.#wire = wire;
    this.#ports = ports;
    this.#protocol = `${wire.prefix}/blobs/1`;
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

  /** Whether the blob is here now. Peers are asked one after the other. */
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

  async #fetch(blob: Hash, signal: AbortSignal): Promise<boolean> {
    const { peers, charge, log } = this.#wire;
    // Another first each time, so that one is not asked for everything.
    const asked = [...peers()].sort(() => Math.random() - 0.5);
    for (const peer of asked) {
      if (signal.aborted) return false;
      try {
        if (await this.#from(peer, blob, signal)) return true;
      } catch (problem) {
        const { code } = problem as { readonly code?: string };
        log('debug', 'a blob did not come', { peer, blob: toHex(blob), problem: String(problem) });
        if (code === 'WRONG_HASH' || code === 'TOO_LARGE' || code === 'MALFORMED') {
          charge(peer, FEE.badResponse, `a blob that is not what was asked for: ${code}`);
        } else if (code === 'TRUNCATED' || code === 'TIMEOUT') charge(peer, FEE.slowResponse, 'a blob that broke off');
        // The chain does not know it, or there is no room: nobody else can help.
        else if (code === 'NOT_EXPECTED' || code === 'STORE_FULL') return false;
      }
    }
    return this.#ports.blobs.has(blob);
  }

  async #from(peer: PeerId, blob: Hash, signal: AbortSignal): Promise<boolean> {
    const until = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_MS)]);
    const stream = await this.#wire.host.dialProtocol(peerIdFromString(peer), this.#protocol, { signal: until });
    const frames = new Frames(stream, CHUNK + 16, signal);
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
      stream.abort(new NetworkError('CLOSED', 'the blob came, or did not'));
    }
  }

  #serve(stream: Stream, connection: Connection): void {
    const { charge, clock, log } = this.#wire;
    const { blobs } = this.#ports;
    const peer = connection.remotePeer.toString();
    if (this.#rates.size > 1_024) this.#rates.clear();
    const rate = this.#rates.get(peer) ?? new RateLimit(() => clock.monotonic(), 20, 200);
    this.#rates.set(peer, rate);
    let asked = false;
    const gone = new AbortController();
    stream.addEventListener('close', () => gone.abort());
    const late = setTimeout(() => {
      if (!asked) stream.abort(new NetworkError('TIMEOUT', 'nothing was asked'));
    }, CONNECT_MS);
    late.unref();
    const send = async (frame: Uint8Array): Promise<void> =>
      sendFrame(stream, frame, AbortSignal.any([gone.signal, AbortSignal.timeout(IDLE_MS)]));
    const answer = async (request: Uint8Array): Promise<void> => {
      const blob = decode(hash, request);
      const size = blobs.size(blob);
      if (size === undefined || this.#uploads >= MAX_UPLOADS) {
        await send(encode(found, { type: 'Missing' } as never));
        return;
      }
      this.#uploads++;
      try {
        await send(encode(found, { type: 'Found', value: { size: BigInt(size) } }));
        for await (const part of blobs.stream(blob)) {
          for (let at = 0; at < part.length; at += CHUNK) await send(part.subarray(at, at + CHUNK));
        }
      } finally {
        this.#uploads--;
      }
    };
    listenFrames(stream, {
      max: 32,
      onFrame: async (frame) => {
        clearTimeout(late);
        if (asked || !rate.take()) {
          charge(peer, FEE.tooFast, 'too many requests for blobs');
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

/** The frames of a stream, one at a time: it is read no faster than they are taken. */
class Frames implements AsyncIterable<Uint8Array> {
  readonly #signal: AbortSignal;
  #offer: { readonly frame: Uint8Array; readonly taken: () => void } | undefined;
  #ended = false;
  #problem: Error | undefined;
  #wake: () => void = () => {};

  constructor(stream: Stream, max: number, signal: AbortSignal) {
    this.#signal = signal;
    listenFrames(stream, {
      max,
      onFrame: (frame) =>
        new Promise<void>((taken) => {
          if (this.#ended) taken();
          this.#offer = { frame, taken };
          this.#wake();
        }),
      onEnd: (problem) => {
        this.#ended = true;
        this.#problem = problem;
        this.#wake();
      },
    });
  }

  /** Undefined at the end. Rejects with {@link NetworkError} when the stream breaks or is silent for too long. */
  async next(): Promise<Uint8Array | undefined> {
    const silent = AbortSignal.any([this.#signal, AbortSignal.timeout(IDLE_MS)]);
    while (this.#offer === undefined) {
      if (this.#problem !== undefined) throw this.#problem;
      if (this.#ended) return undefined;
      if (silent.aborted) throw new NetworkError('TIMEOUT', 'nothing comes any more');
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          silent.removeEventListener('abort', wake);
          resolve();
        };
        this.#wake = wake;
        silent.addEventListener('abort', wake, { once: true });
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
