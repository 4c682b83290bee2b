/**
 * The inference hub across nodes: an application at one node reaches a worker at another. Questions go straight to the node
 * that the worker is attached to, text comes back as it is made, and the receipt is verified here before anybody gets it.
 */
import { randomBytes } from 'node:crypto';
import type { Connection, Stream } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import {
  type AttachedWorker,
  type GenerationRequest,
  HubError,
  type HubErrorCode,
  type HubJob,
  type InferenceHub,
  type JobListener,
  type ProgressFault,
  type ProgressReport,
  type ServedModel,
  type SignedProgress,
} from '../../node/ports/inference.ts';
import type { SignedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { Budget } from '../limits/budget.ts';
import { Places } from '../limits/places.ts';
import { MAX_QUESTION_BYTES, MAX_REPLY_BYTES, MAX_TEXT, question, type Reply, reply } from '../protocols/inference.ts';
import { Pace } from '../wire/pace.ts';
import { listenFrames, sendFrame } from '../wire/streams.ts';
import type { Wire } from '../wire/wire.ts';
import { type AdvertPorts, Adverts, type ServingNode } from './adverts.ts';
import { type ReceiptPorts, ReceiptRoom } from './receipt-topic.ts';
import { TrainingRoom } from './training-topic.ts';

/** The hub of this node alone. */
export interface LocalHub
  extends InferenceHub,
    Pick<AdvertPorts, 'lines' | 'served' | 'obligationsOf'>,
    Pick<ReceiptPorts, 'isSettled' | 'noteReceipt'> {
  /** A code for what is wrong with an answer; undefined for one that holds. */
  faultOf(request: GenerationRequest, receipt: SignedInferenceReceipt, text: string): Promise<string | undefined>;
}

const CODES: ReadonlySet<string> = new Set<HubErrorCode>([
  'NO_WORKER',
  'NOT_SERVED',
  'WRONG_PRICE',
  'BAD_VOUCHER',
  'ASKED_AGAIN',
  'DEPOSIT_SPENT',
  'OVERLOADED',
  'WORKER_LEFT',
  'WORKER_REFUSED',
  'TIMED_OUT',
  'BAD_RECEIPT',
]);
/** Until a question is asked, at the longest. */
const CONNECT_MS = 5_000;
/** Until the worker's node says that it has the question; beyond that it has broken its promise. */
const TAKEN_MS = 4_000;
/** Both, as long as there is another way. */
const NEXT_MS = 1_000;
/** Beyond what a worker has for a job, so that its own node's word comes first. */
const ANSWER_MS = 130_000;
/** Frames that wait for a slow asker. */
const MAX_WAITING = 1_024;
/** Questions that are being answered here for others. */
const ANSWERING = { all: 256, peer: 64 } as const;
/** Questions of one peer, of a group and of all. */
const RATES = {
  peer: { perSecond: 20, burst: 100 },
  group: { perSecond: 40, burst: 200 },
  all: { perSecond: 160, burst: 800 },
} as const;
/** What is answered has to be taken at least so fast. */
const REPLY_PACE = { graceMs: 10_000, bytesPerSecond: 16 * 1024 } as const;

export class InferenceNetwork implements InferenceHub {
  readonly name = 'inference';
  readonly #wire: Wire;
  readonly #hub: LocalHub;
  readonly #adverts: Adverts;
  readonly #receipts: ReceiptRoom;
  readonly #trainings: TrainingRoom;
  readonly #protocol: string;
  /** Jobs elsewhere, by the name that this node gave them. */
  readonly #remote = new Map<string, { stop(): void }>();
  readonly #rates: Budget;
  readonly #answering: Places;

  constructor(
    wire: Wire,
    hub: LocalHub,
    ports: Pick<AdvertPorts, 'genesisHash' | 'isAttachment'> & Pick<ReceiptPorts, 'verify' | 'hashing'>,
  ) {
    const { genesisHash } = ports;
    this.#wire = wire;
    this.#hub = hub;
    this.#protocol = `${wire.prefix}/inference/1`;
    const groupOf = (peer: PeerId): string => wire.limits.origins.groupOf(peer);
    this.#rates = new Budget(() => wire.clock.monotonic(), groupOf, RATES);
    this.#answering = new Places(ANSWERING, groupOf);
    this.#adverts = new Adverts(wire, {
      genesisHash,
      isAttachment: ports.isAttachment,
      lines: () => hub.lines(),
      served: (adapter, worker, waiting) => hub.served(adapter, worker, waiting),
      obligationsOf: (worker) => hub.obligationsOf(worker),
    });
    this.#receipts = new ReceiptRoom(wire, {
      ...ports,
      isSettled: (receipt) => hub.isSettled(receipt),
      noteReceipt: (receipt) => hub.noteReceipt(receipt),
    });
    this.#trainings = new TrainingRoom(wire, (report) => hub.progress(report));
  }

  async register(): Promise<void> {
    await this.#wire.host.handle(this.#protocol, (stream, connection) => this.#serve(stream, connection), {
      maxInboundStreams: 80,
      maxOutboundStreams: 256,
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    await this.#adverts.run(signal);
    this.#receipts.leave();
    this.#trainings.leave();
  }

  // ---- the hub -----------------------------------------------------------------------------------------------

  attach(worker: AttachedWorker): () => void {
    return this.#hub.attach(worker);
  }

  models(): readonly ServedModel[] {
    const local = this.#hub.models();
    const here = (each: ServedModel): boolean =>
      local.some(({ adapter, worker }) => adapter === each.adapter && equalBytes(worker, each.worker));
    return [...local, ...this.#adverts.models().filter((each) => !here(each))].sort(
      (a, b) => a.adapter - b.adapter || a.waiting - b.waiting,
    );
  }

  generate(request: GenerationRequest, listener: JobListener): HubJob {
    try {
      return this.#hub.generate(request, listener);
    } catch (problem) {
      if (!(problem instanceof HubError) || problem.code !== 'NO_WORKER') throw problem;
    }
    const nodes = this.#adverts.nodesOf(request.voucher.payload.worker);
    if (nodes.length === 0)
      throw new HubError('NO_WORKER', 'the voucher’s worker is attached to no node that is known');
    const id = `far-${randomBytes(16).toString('hex')}`;
    const stop = new AbortController();
    let over = false;
    const end = (): boolean => {
      if (over) return false;
      over = true;
      this.#remote.delete(id);
      return true;
    };
    const once: JobListener = {
      delta: (text) => {
        if (!over) listener.delta(text);
      },
      answer: (receipt, text) => {
        if (end()) listener.answer(receipt, text);
      },
      fail: (error) => {
        if (end()) listener.fail(error);
      },
    };
    const handle = { stop: (): void => {} };
    this.#remote.set(id, handle);
    this.#ask(nodes, request, once, handle, stop.signal).catch((problem: unknown) => {
      const error = problem instanceof HubError ? problem : new HubError('WORKER_LEFT', String(problem));
      once.fail(error);
    });
    return {
      id,
      cancel: () => {
        end();
        stop.abort();
      },
    };
  }

  stop(job: string): void {
    const remote = this.#remote.get(job);
    if (remote === undefined) this.#hub.stop(job);
    else remote.stop();
  }

  delta(job: string, account: AccountId, text: string): void {
    this.#hub.delta(job, account, text);
  }

  refuse(job: string, account: AccountId, code: string, message: string): void {
    this.#hub.refuse(job, account, code, message);
  }

  async answer(job: string, account: AccountId, receipt: SignedInferenceReceipt, text: string): Promise<void> {
    await this.#hub.answer(job, account, receipt, text);
    this.#receipts.publish(receipt);
  }

  progress(report: SignedProgress): ProgressFault | undefined {
    const fault = this.#hub.progress(report);
    if (fault === undefined) this.#trainings.publish(report);
    return fault;
  }

  watchReceipts(tell: (receipt: SignedInferenceReceipt) => void): () => void {
    return this.#hub.watchReceipts(tell);
  }

  watch(order: number, tell: (report: ProgressReport) => void): () => void {
    return this.#hub.watch(order, tell);
  }

  // ---- asking ------------------------------------------------------------------------------------------------

  /** One node after the other, as long as they have not the worker. */
  async #ask(
    nodes: readonly ServingNode[],
    request: GenerationRequest,
    listener: JobListener,
    handle: { stop(): void },
    signal: AbortSignal,
  ): Promise<void> {
    let last = new HubError('NO_WORKER', 'the node that the worker is attached to cannot be reached');
    for (const [i, node] of nodes.entries()) {
      if (signal.aborted) return;
      const isLast = i === nodes.length - 1;
      let stream: Stream;
      try {
        stream = await this.#open(node, isLast ? CONNECT_MS : NEXT_MS, signal);
      } catch (problem) {
        this.#wire.log('debug', 'a serving node cannot be reached', { peer: node.peer, problem: String(problem) });
        continue;
      }
      const patience = isLast ? TAKEN_MS : NEXT_MS;
      const refused = await this.#converse(stream, node, patience, request, listener, handle, signal);
      if (refused === undefined) return;
      last = refused;
    }
    throw last;
  }

  async #open({ peer, addresses }: ServingNode, withinMs: number, signal: AbortSignal): Promise<Stream> {
    const { host } = this.#wire;
    const until = AbortSignal.any([signal, AbortSignal.timeout(withinMs)]);
    const id = peerIdFromString(peer);
    if (host.getConnections(id).length === 0 && addresses.length > 0) {
      await host.dial(
        addresses.map((each) => multiaddr(each)),
        { signal: until },
      );
    }
    return host.dialProtocol(id, this.#protocol, { signal: until });
  }

  /** Undefined when the listener was told the end; an error when another node may be asked. */
  #converse(
    stream: Stream,
    { peer }: ServingNode,
    patienceMs: number,
    request: GenerationRequest,
    listener: JobListener,
    handle: { stop(): void },
    signal: AbortSignal,
  ): Promise<HubError | undefined> {
    const { charge, clock } = this.#wire;
    const until = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]);
    return new Promise((resolve) => {
      let said = 0;
      const end = (error: HubError | undefined, again = false): void => {
        until.removeEventListener('abort', giveUp);
        noticed();
        if (stream.status === 'open') stream.close().catch(() => stream.abort(new Error('it could not be closed')));
        if (error !== undefined && !again) listener.fail(error);
        resolve(again ? error : undefined);
      };
      const giveUp = (): void => {
        stream.abort(new NetworkError('CLOSED', 'nobody waits for the answer any more'));
        end(signal.aborted ? undefined : new HubError('TIMED_OUT', 'the worker’s node took too long'));
      };
      until.addEventListener('abort', giveUp, { once: true });
      const noticed = clock.after(patienceMs, () => {
        charge(peer, FEE.brokenPromise, 'a question was not taken');
        stream.abort(new NetworkError('TIMEOUT', 'the question was not taken'));
        end(new HubError('TIMED_OUT', 'the worker’s node does not take questions'), true);
      });
      const take = async (message: Reply): Promise<void> => {
        noticed();
        if (message.type === 'Taken') return;
        if (message.type === 'Delta') {
          said += message.value.length;
          if (said > MAX_TEXT) throw new NetworkError('MALFORMED', 'more text than an answer may have');
          listener.delta(message.value);
        } else if (message.type === 'Failed') {
          const { code, message: words, reason } = message.value;
          const known = CODES.has(code) ? (code as HubErrorCode) : 'WORKER_REFUSED';
          end(new HubError(known, words, reason), known === 'NO_WORKER' && said === 0);
        } else {
          const { receipt, text } = message.value;
          const fault = await this.#hub.faultOf(request, receipt, text);
          if (fault === undefined) {
            listener.answer(receipt, text);
            end(undefined);
            return;
          }
          // A node that is behind, or lacks the adapter's files, cannot blame another one.
          if (fault !== 'NO_DATA') charge(peer, FEE.badResponse, `a receipt that does not hold: ${fault}`);
          end(new HubError('BAD_RECEIPT', `the receipt does not hold: ${fault}`, fault));
        }
      };
      listenFrames(stream, {
        max: MAX_REPLY_BYTES,
        account: { peer, held: this.#wire.limits.held.answers },
        onFrame: async (frame) => {
          try {
            await take(decode(reply, frame.slice()));
          } catch (problem) {
            const bad = problem instanceof ScaleError || problem instanceof NetworkError;
            if (bad) charge(peer, FEE.malformed, `a malformed answer: ${(problem as Error).message}`);
            else this.#wire.log('error', 'an answer could not be taken', { problem: String(problem) });
            stream.abort(problem as Error);
            end(new HubError('WORKER_LEFT', 'the answer could not be read'));
          }
        },
        onEnd: () => end(new HubError('WORKER_LEFT', 'the worker’s node closed the line'), false),
      });
      handle.stop = () => {
        sendFrame(stream, encode(question, { type: 'Stop', value: undefined } as never), until).catch(() => {});
      };
      sendFrame(stream, encode(question, { type: 'Ask', value: request }), until).catch(() => {
        end(new HubError('NO_WORKER', 'the worker’s node could not be asked'), true);
      });
    });
  }

  // ---- answering ---------------------------------------------------------------------------------------------

  #serve(stream: Stream, connection: Connection): void {
    const { charge, clock, limits, log } = this.#wire;
    const peer = connection.remotePeer.toString();
    let vacate: (() => void) | undefined;
    const gone = new AbortController();
    let job: HubJob | undefined;
    let finished = false;
    let waiting = 0;
    let turn: Promise<void> = Promise.resolve();
    const say = (message: Reply, last: boolean): void => {
      if (finished) return;
      if (last) finished = true;
      // Whoever does not listen to what it asked for does not get it.
      if (++waiting > MAX_WAITING) {
        finished = true;
        job?.cancel();
        stream.abort(new NetworkError('BUSY', 'the asker does not keep up'));
        return;
      }
      turn = turn
        .then(async () => {
          const pace = new Pace(clock, REPLY_PACE);
          try {
            await sendFrame(stream, encode(reply, message), gone.signal, pace);
          } finally {
            pace.end();
          }
          waiting--;
          if (last) await stream.close();
        })
        .catch((problem: unknown) => {
          log('debug', 'an answer could not be sent', { peer, problem: String(problem) });
          stream.abort(problem as Error);
        });
    };
    const fail = ({ code, message, reason }: HubError): void =>
      say({ type: 'Failed', value: { code, message: message.slice(0, 500), reason: reason?.slice(0, 60) } }, true);
    const ask = (request: GenerationRequest): void => {
      if (job !== undefined || finished) {
        charge(peer, FEE.malformed, 'two questions in one stream');
        return;
      }
      const allowed = this.#rates.take(peer);
      if (allowed === 'peer') charge(peer, FEE.tooFast, 'too many questions');
      if (allowed === 'taken')
        vacate = this.#answering.take(peer, () => stream.abort(new NetworkError('BUSY', 'others wait')));
      if (vacate === undefined) {
        fail(new HubError('OVERLOADED', 'too many questions'));
        return;
      }
      try {
        // Only what is attached here: questions are not passed on any further.
        job = this.#hub.generate(request, {
          delta: (text) => say({ type: 'Delta', value: text }, false),
          answer: (receipt, text) => say({ type: 'Answer', value: { text, receipt } }, true),
          fail,
        });
        say({ type: 'Taken' }, false);
      } catch (problem) {
        if (!(problem instanceof HubError)) throw problem;
        if (problem.code === 'BAD_VOUCHER') charge(peer, FEE.badTransaction, 'a question without a good voucher');
        fail(problem);
      }
    };
    stream.addEventListener('close', () => {
      vacate?.();
      gone.abort();
      clearTimeout(late);
      if (!finished) job?.cancel();
      finished = true;
    });
    const late = setTimeout(() => {
      if (job === undefined && !finished) stream.abort(new NetworkError('TIMEOUT', 'nothing was asked'));
    }, CONNECT_MS);
    late.unref();
    listenFrames(stream, {
      max: MAX_QUESTION_BYTES,
      account: { peer, held: limits.held.incoming },
      onFrame: (frame) => {
        try {
          const message = decode(question, frame.slice());
          if (message.type === 'Ask') ask(message.value);
          else if (job !== undefined && !finished) this.#hub.stop(job.id);
        } catch (problem) {
          if (problem instanceof ScaleError) charge(peer, FEE.malformed, `a malformed question: ${problem.message}`);
          else if (!(problem instanceof HubError)) log('error', 'a question failed', { problem: String(problem) });
          stream.abort(problem as Error);
        }
      },
      onEnd: (problem) => {
        if (problem instanceof NetworkError && problem.code !== 'CLOSED') charge(peer, FEE.malformed, problem.message);
        if (job === undefined && !finished) stream.abort(new NetworkError('CLOSED', 'nothing was asked'));
      },
    });
  }
}
