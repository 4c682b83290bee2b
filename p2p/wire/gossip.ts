/** Rooms of gossip: what is said in one is looked at by a validator, and only what it accepts is passed on. */
import { TopicValidatorResult } from '@libp2p/gossipsub';
import type { Clock, Log } from '../../node/ports/machine.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import type { Host } from '../host/host.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { Budget } from '../limits/budget.ts';
import type { Limits } from '../limits/limits.ts';

export type Verdict =
  | { readonly type: 'accept' }
  /** Not wrong, but not worth passing on; `cost` if it was a nuisance. */
  | { readonly type: 'ignore'; readonly cost?: number }
  | { readonly type: 'reject'; readonly reason: string; readonly cost: number };

export const ACCEPT: Verdict = { type: 'accept' };
export const IGNORE: Verdict = { type: 'ignore' };
/** On a message that does not decode; throws on what is not its fault. `what`: "a malformed block". */
export function malformed(what: string, problem: unknown): Verdict {
  if (!(problem instanceof ScaleError)) throw problem;
  return { type: 'reject', reason: `${what}: ${problem.message}`, cost: FEE.malformed };
}

/** All rooms that there are; gossip on other topics is not heard. */
export const ROOMS = ['blocks', 'transactions', 'grandpa', 'serving', 'receipts', 'trainings'] as const;
export type RoomName = (typeof ROOMS)[number];
/** `prefix`: `/<genesis hash>[/<fork id>]`. */
export const topicOf = (prefix: string, room: RoomName): string => `${prefix}/${room}/1`;

export interface RoomOptions {
  readonly name: RoomName;
  readonly maxMessage: number;
  /** What one neighbour may bring. */
  readonly perSecond: number;
  readonly burst: number;
  /** Decides, and takes delivery of what it accepts. */
  validate(from: PeerId, message: Uint8Array): Promise<Verdict> | Verdict;
}

export interface Room {
  publish(message: Uint8Array): void;
  /** Neighbours in the room. */
  members(): ReadonlySet<PeerId>;
  leave(): void;
}

export interface GossipPorts {
  readonly host: Host;
  readonly prefix: string;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  readonly isBanned: (peer: PeerId) => boolean;
  /** A message came. */
  readonly count: () => void;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly log: Log;
}

/** How many times what one neighbour may bring its group may, and all neighbours. */
const GROUP_SHARE = 4;
const ALL_SHARE = 16;

export class Gossip {
  readonly #ports: GossipPorts;
  readonly #joined = new Set<string>();

  constructor(ports: GossipPorts) {
    this.#ports = ports;
  }

  join(options: RoomOptions): Room {
    const { host, prefix, charge, count, isBanned, clock, limits, log } = this.#ports;
    const { gossip } = host.services;
    const topic = topicOf(prefix, options.name);
    const { perSecond, burst } = options;
    const times = (share: number) => ({ perSecond: share * perSecond, burst: share * burst });
    const rates = new Budget(
      () => clock.monotonic(),
      (peer) => limits.origins.groupOf(peer),
      { peer: times(1), group: times(GROUP_SHARE), all: times(ALL_SHARE) },
    );
    gossip.topicValidators.set(topic, async (source, { data }) => {
      const from = source.toString();
      if (isBanned(from)) return TopicValidatorResult.Ignore;
      count();
      const allowed = rates.take(from);
      if (allowed === 'peer') charge(from, FEE.tooFast, `too many messages on ${options.name}`);
      if (allowed !== 'taken') return TopicValidatorResult.Ignore;
      if (data.length > options.maxMessage) {
        charge(from, FEE.tooLarge, `a message of ${data.length} bytes on ${options.name}`);
        return TopicValidatorResult.Reject;
      }
      try {
        const before = performance.now();
        const judged = options.validate(from, data);
        limits.throttle.spent(from, performance.now() - before);
        const verdict = await judged;
        if (verdict.type === 'accept') {
          limits.origins.wasUseful(from);
          return TopicValidatorResult.Accept;
        }
        if (verdict.type === 'reject') {
          charge(from, verdict.cost, verdict.reason);
          return TopicValidatorResult.Reject;
        }
        if (verdict.cost !== undefined) charge(from, verdict.cost, `a nuisance on ${options.name}`);
      } catch (problem) {
        log('error', `a message on ${options.name} could not be judged`, { problem: String(problem) });
      }
      return TopicValidatorResult.Ignore;
    });
    this.#joined.add(topic);
    if (host.status === 'started') gossip.subscribe(topic);
    return {
      publish(message) {
        if (host.status !== 'started') return;
        gossip.publish(topic, message).catch((problem: unknown) => {
          log('debug', `nothing was said on ${options.name}`, { problem: String(problem) });
        });
      },
      members: () => new Set(host.status === 'started' ? gossip.getSubscribers(topic).map(String) : []),
      leave: () => {
        this.#joined.delete(topic);
        if (host.status === 'started') gossip.unsubscribe(topic);
        gossip.topicValidators.delete(topic);
      },
    };
  }

  /** Enters the rooms that were joined before the host had started. */
  start(): void {
    for (const topic of this.#joined) this.#ports.host.services.gossip.subscribe(topic);
  }
}
