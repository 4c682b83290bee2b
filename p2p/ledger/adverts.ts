/**
 * Who serves which adapter where. Nodes tell it by gossip: each worker has signed that it is attached to the node, so nobody else gets
 * its questions, and the chain says which adapters it may have.
 */
import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import { peerIdFromPublicKey } from '@libp2p/peer-id';
import { LRUCache } from 'lru-cache';
import type { AttachedWorker, ServedModel, SignedAttachment } from '../../node/ports/inference.ts';
import { concatBytes, equalBytes, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import type { AccountId, Hash } from '../../runtime/primitives/types.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { Budget } from '../limits/budget.ts';
import { type Advert, advert, MAX_ADVERT_BYTES, signedAdvert } from '../protocols/inference.ts';
import { pause } from '../sync/pause.ts';
import { ACCEPT, IGNORE, malformed, type Room, type Verdict } from '../wire/gossip.ts';
import type { Wire } from '../wire/wire.ts';

const DOMAIN = utf8('openledger/advert/2');
const LOOK_MS = 1_000;
const REPEAT_MS = 10_000;
/** Unheard of for so long, a node is taken to serve no more. */
const KEPT_MS = 35_000;
/** How far clocks may be apart. */
const MAX_SKEW_MS = 5 * 60_000;
/** A worker's word that it is attached to a node is believed for so long. */
const ATTACHED_MS = 30 * 60_000;
const MAX_NODES = 512;
const MAX_WORKERS = 64;
/** Pairs of adapter and worker that are remembered, from all nodes. */
const MAX_SERVED = 8_192;
const MAX_ATTACHMENTS = 4_096;
/** Nodes that are asked for one worker. */
const MAX_ROUTES = 3;
/** Adapters of an advert that are looked up before it is passed on; one that is served is enough. */
const LOOKED_AT = 8;
/** New signatures of workers that are checked because of one neighbour, a group and all: a check is some 0.3 ms. */
const CHECKS = {
  peer: { perSecond: 8, burst: 128 },
  group: { perSecond: 16, burst: 256 },
  all: { perSecond: 50, burst: 512 },
} as const;

export interface AdvertPorts {
  readonly genesisHash: () => Hash;
  /** What is attached to this node. */
  readonly lines: () => readonly { readonly worker: AttachedWorker; readonly waiting: number }[];
  /** By the chain's word; undefined when that worker does not serve it. */
  readonly served: (adapter: number, worker: AccountId, waiting: number) => ServedModel | undefined;
  /** The most adapters that the worker can have; undefined for no worker. */
  readonly obligationsOf: (worker: AccountId) => number | undefined;
  /** Whether the worker has signed it. */
  readonly isAttachment: (attachment: SignedAttachment) => boolean;
}

interface HeardWorker {
  readonly account: AccountId;
  readonly attachedAt: number;
  readonly waiting: number;
  readonly adapters: readonly number[];
}

interface Heard {
  readonly peer: PeerId;
  readonly at: bigint;
  readonly addresses: readonly string[];
  readonly workers: readonly HeardWorker[];
  readonly until: number;
}

export interface ServingNode {
  readonly peer: PeerId;
  readonly addresses: readonly string[];
}

export class Adverts {
  readonly #wire: Wire;
  readonly #ports: AdvertPorts;
  readonly #heard = new Map<string, Heard>();
  readonly #room: Room;
  readonly #checks: Budget;
  /** Attachments whose signature was checked, by that signature. */
  readonly #checked = new LRUCache<string, true>({ max: MAX_ATTACHMENTS });
  #latest = 0;

  constructor(wire: Wire, ports: AdvertPorts) {
    this.#wire = wire;
    this.#ports = ports;
    this.#checks = new Budget(
      () => wire.clock.monotonic(),
      (peer) => wire.limits.origins.groupOf(peer),
      CHECKS,
    );
    this.#room = wire.join({
      name: 'serving',
      maxMessage: MAX_ADVERT_BYTES,
      perSecond: 50,
      burst: 500,
      validate: (from, bytes) => this.heard(from, bytes),
    });
  }

  /** Tells what is attached here: when it changes, and again before it is forgotten. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#wire;
    let told = '';
    let toldAt = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      const workers = this.#workers();
      const now = workers
        .map(({ attachment: { payload }, adapters }) => `${toHex(payload.worker)}@${payload.at}:${adapters.join()}`)
        .join(';');
      const due = clock.monotonic() - toldAt >= REPEAT_MS && workers.length > 0;
      if ((now !== told || due) && !this.#wire.isMajorSyncing()) {
        this.#room.publish(await this.#make(workers));
        told = now;
        toldAt = clock.monotonic();
      }
      await pause(clock, LOOK_MS, signal);
    }
    this.#room.leave();
  }

  #workers(): Advert['workers'] {
    const workers: Advert['workers'][number][] = [];
    let size = 0;
    for (const { worker, waiting } of this.#ports.lines()) {
      const most = this.#ports.obligationsOf(worker.account) ?? 0;
      const adapters = worker.adapters
        .slice(0, most)
        .filter((adapter) => this.#ports.served(adapter, worker.account, waiting) !== undefined);
      size += 256 + 4 * adapters.length;
      if (adapters.length === 0 || size > MAX_ADVERT_BYTES - 8_192) continue;
      workers.push({ attachment: worker.attachment, waiting, adapters });
      if (workers.length === MAX_WORKERS) break;
    }
    return workers;
  }

  async #make(workers: Advert['workers']): Promise<Uint8Array> {
    const { host, publicKey, sign, clock } = this.#wire;
    // Two in one millisecond must still be told apart.
    this.#latest = Math.max(this.#latest + 1, clock.now());
    const value: Advert = {
      chain: this.#ports.genesisHash(),
      node: publicKey,
      at: BigInt(this.#latest),
      addresses: host
        .getMultiaddrs()
        .map(String)
        .filter((each) => each.length <= 256)
        .slice(0, 16),
      workers,
    };
    return encode(signedAdvert, { advert: value, signature: await sign(concatBytes(DOMAIN, encode(advert, value))) });
  }

  async heard(from: PeerId, bytes: Uint8Array): Promise<Verdict> {
    const { clock, publicKey } = this.#wire;
    let value: Advert;
    let signature: Uint8Array;
    try {
      ({ advert: value, signature } = decode(signedAdvert, bytes.slice()));
    } catch (problem) {
      return malformed('a malformed advert', problem);
    }
    const key = toHex(value.node);
    const before = this.#heard.get(key);
    if (!equalBytes(value.chain, this.#ports.genesisHash()) || equalBytes(value.node, publicKey)) return IGNORE;
    if (before !== undefined && before.at >= value.at) return IGNORE;
    if (Math.abs(Number(value.at) - clock.now()) > MAX_SKEW_MS) return IGNORE;
    const claimed = this.#claimsOf(value);
    if (typeof claimed === 'string') return { type: 'reject', reason: claimed, cost: FEE.badResponse };
    let peer: PeerId;
    try {
      const raw = publicKeyFromRaw(value.node);
      if (!(await raw.verify(concatBytes(DOMAIN, encode(advert, value)), signature))) {
        return { type: 'reject', reason: 'an advert with a wrong signature', cost: FEE.invalidBlock };
      }
      peer = peerIdFromPublicKey(raw).toString();
    } catch {
      return { type: 'reject', reason: 'an advert under a key that is none', cost: FEE.malformed };
    }
    // Who is no worker here may be one where the block after this one is known; still, telling of it is a nuisance.
    const workers: HeardWorker[] = [];
    for (const claim of claimed) {
      const verdict = this.#judge(from, claim);
      if (verdict === 'forged') {
        return { type: 'reject', reason: 'a worker’s word that the worker did not give', cost: FEE.invalidBlock };
      }
      if (verdict === 'good') workers.push(claim.worker);
    }
    if (claimed.length > 0 && workers.length === 0) return { type: 'ignore', cost: FEE.refused };
    this.#expire();
    if (!this.#heard.has(key) && (this.#heard.size >= MAX_NODES || workers.length === 0)) return IGNORE;
    const { at, addresses } = value;
    if (workers.length === 0) this.#heard.delete(key);
    else this.#heard.set(key, { peer, at, addresses, workers, until: clock.monotonic() + KEPT_MS });
    return ACCEPT;
  }

  /** What an advert says of each worker, or why it cannot be true. */
  #claimsOf({ node, chain, workers }: Advert): readonly Claim[] | string {
    const claims: Claim[] = [];
    const seen = new Set<string>();
    for (const { attachment, waiting, adapters } of workers) {
      const { payload } = attachment;
      const name = toHex(payload.worker);
      if (!equalBytes(payload.node, node) || !equalBytes(payload.chain, chain))
        return 'a worker’s word for another node';
      if (seen.has(name)) return 'an advert that names a worker twice';
      seen.add(name);
      const worker = { account: payload.worker, attachedAt: Number(payload.at), waiting, adapters };
      claims.push({ attachment, worker });
    }
    return claims;
  }

  /** Cheap things first: a signature is checked only of a worker that serves, and once. */
  #judge(from: PeerId, { attachment, worker }: Claim): 'good' | 'useless' | 'forged' {
    const { obligationsOf, served, isAttachment } = this.#ports;
    const { account, adapters, attachedAt, waiting } = worker;
    const age = this.#wire.clock.now() - attachedAt;
    if (age > ATTACHED_MS || age < -MAX_SKEW_MS) return 'useless';
    const most = obligationsOf(account);
    if (most === undefined || adapters.length > most) return 'useless';
    if (!adapters.slice(0, LOOKED_AT).some((adapter) => served(adapter, account, waiting) !== undefined))
      return 'useless';
    const name = `${toHex(attachment.signature.value)}/${toHex(account)}/${toHex(attachment.payload.node)}/${attachedAt}`;
    if (this.#checked.has(name)) return 'good';
    if (this.#checks.take(from) !== 'taken') return 'useless';
    if (!isAttachment(attachment)) return 'forged';
    this.#checked.set(name, true);
    return 'good';
  }

  #expire(): void {
    const now = this.#wire.clock.monotonic();
    for (const [key, { until }] of this.#heard) if (until < now) this.#heard.delete(key);
  }

  /** What is served elsewhere. */
  models(): ServedModel[] {
    this.#expire();
    const found: ServedModel[] = [];
    let looked = 0;
    for (const { workers } of this.#heard.values()) {
      for (const { account, waiting, adapters } of workers) {
        for (const adapter of adapters) {
          if (++looked > MAX_SERVED) return found;
          const model = this.#ports.served(adapter, account, waiting);
          if (model !== undefined) found.push(model);
        }
      }
    }
    return found;
  }

  /** Nodes that the worker has attached to, the latest first. */
  nodesOf(worker: AccountId): ServingNode[] {
    this.#expire();
    return [...this.#heard.values()]
      .flatMap(({ peer, workers, addresses }) => {
        const found = workers.find(({ account }) => equalBytes(account, worker));
        return found === undefined ? [] : [{ peer, addresses, attachedAt: found.attachedAt }];
      })
      .sort((a, b) => b.attachedAt - a.attachedAt)
      .slice(0, MAX_ROUTES);
  }
}

interface Claim {
  readonly attachment: SignedAttachment;
  readonly worker: HeardWorker;
}
