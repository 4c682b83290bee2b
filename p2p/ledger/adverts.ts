/** Who serves which adapter where: nodes tell it by gossip, signed with the key that they are known by. */
import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import { peerIdFromPublicKey } from '@libp2p/peer-id';
import type { ServedModel } from '../../node/ports/inference.ts';
import { concatBytes, equalBytes, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import type { AccountId, Hash } from '../../runtime/primitives/types.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { type Advert, advert, MAX_ADVERT_BYTES, signedAdvert } from '../protocols/inference.ts';
import { pause } from '../sync/pause.ts';
import { ACCEPT, IGNORE, malformed, type Room, type Verdict } from '../wire/gossip.ts';
import type { Wire } from '../wire/wire.ts';

const DOMAIN = utf8('openledger/advert/1');
const LOOK_MS = 1_000;
const REPEAT_MS = 10_000;
/** Unheard of for so long, a node is taken to serve no more. */
const KEPT_MS = 35_000;
/** How far clocks may be apart. */
const MAX_SKEW_MS = 60_000;
const MAX_NODES = 512;

export interface AdvertPorts {
  readonly genesisHash: () => Hash;
  /** What is attached to this node. */
  readonly local: () => readonly ServedModel[];
  /** By the chain's word; undefined when that worker does not serve it. */
  readonly served: (adapter: number, worker: AccountId, waiting: number) => ServedModel | undefined;
}

interface Heard {
  readonly peer: PeerId;
  readonly advert: Advert;
  readonly until: number;
}

export interface ServingNode {
  readonly peer: PeerId;
  readonly addresses: readonly string[];
  readonly waiting: number;
}

export class Adverts {
  readonly #wire: Wire;
  readonly #ports: AdvertPorts;
  readonly #heard = new Map<string, Heard>();
  readonly #room: Room;
  #latest = 0;

  constructor(wire: Wire, ports: AdvertPorts) {
    this.#wire = wire;
    this.#ports = ports;
    this.#room = wire.join({
      name: 'serving',
      maxMessage: MAX_ADVERT_BYTES,
      perSecond: 50,
      burst: 500,
      validate: (_from, bytes) => this.heard(bytes),
    });
  }

  /** Tells what is attached here: when it changes, and again before it is forgotten. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#wire;
    let told = '';
    let toldAt = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      const workers = this.#workers();
      const now = workers.map(({ worker, adapters }) => `${toHex(worker)}:${adapters.join()}`).join(';');
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
    const byWorker = new Map<string, { worker: AccountId; waiting: number; adapters: number[] }>();
    for (const { adapter, worker, waiting } of this.#ports.local()) {
      const key = toHex(worker);
      const entry = byWorker.get(key) ?? { worker, waiting, adapters: [] };
      entry.adapters.push(adapter);
      byWorker.set(key, entry);
    }
    return [...byWorker.values()].slice(0, 64);
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

  async heard(bytes: Uint8Array): Promise<Verdict> {
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
    if (before !== undefined && before.advert.at >= value.at) return IGNORE;
    if (Math.abs(Number(value.at) - clock.now()) > MAX_SKEW_MS) return IGNORE;
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
    this.#expire();
    if (before === undefined && this.#heard.size >= MAX_NODES) return IGNORE;
    // What the chain does not know (yet) is left out; where nothing is left, it is nobody's business.
    const known = value.workers.flatMap((each) => {
      const adapters = each.adapters.filter(
        (adapter) => this.#ports.served(adapter, each.worker, each.waiting) !== undefined,
      );
      return adapters.length === 0 ? [] : [{ ...each, adapters }];
    });
    this.#heard.set(key, { peer, advert: { ...value, workers: known }, until: clock.monotonic() + KEPT_MS });
    return known.length > 0 || value.workers.length === 0 ? ACCEPT : IGNORE;
  }

  #expire(): void {
    const now = this.#wire.clock.monotonic();
    for (const [key, { until }] of this.#heard) if (until < now) this.#heard.delete(key);
  }

  /** What is served elsewhere. */
  models(): ServedModel[] {
    this.#expire();
    return [...this.#heard.values()].flatMap(({ advert: { workers } }) =>
      workers.flatMap(({ worker, waiting, adapters }) =>
        adapters.flatMap((adapter) => this.#ports.served(adapter, worker, waiting) ?? []),
      ),
    );
  }

  /** Nodes that say that the worker is attached to them, those with the fewest waiting first. */
  nodesOf(worker: AccountId): ServingNode[] {
    this.#expire();
    return [...this.#heard.values()]
      .flatMap(({ peer, advert: { workers, addresses } }) => {
        const found = workers.find((each) => equalBytes(each.worker, worker));
        return found === undefined ? [] : [{ peer, addresses, waiting: found.waiting }];
      })
      .sort((a, b) => a.waiting - b.waiting);
  }
}
