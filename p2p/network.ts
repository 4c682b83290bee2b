/** The network of the node: who its peers are, and what is spoken with them. */
import type { PeerId as Libp2pPeerId, PrivateKey } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import type { Multiaddr } from '@multiformats/multiaddr';
import type { GrandpaNetwork } from '../consensus/grandpa/driver.ts';
import type {
  BlockImport,
  BlockRef,
  Blocks,
  ChainEvents,
  NetworkStatus,
  PeerInfo,
  RuntimeCalls,
  Service,
  StateRanges,
  States,
} from '../node/ports/chain.ts';
import type { Clock, Log } from '../node/ports/machine.ts';
import type { Hashing, Signatures } from '../runtime/host.ts';
import { equalBytes, toHex } from '../runtime/primitives/bytes.ts';
import { decode, encode } from '../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../runtime/primitives/scale/io.ts';
import { type BlockCheck, BlockNews, MAX_BLOCK_BYTES } from './chain/block-news.ts';
import { Finality, type VoterPort } from './chain/finality.ts';
import { MAX_TRANSACTIONS_BYTES, type NetworkPool, Transactions } from './chain/transactions.ts';
import { Dialer } from './host/dialer.ts';
import { Discovery } from './host/discovery.ts';
import { NetworkError } from './host/errors.ts';
import { createHost, type Host } from './host/host.ts';
import { loadIdentity } from './host/identity.ts';
import { KnownPeers } from './host/known-peers.ts';
import { FEE, type PeerId, PeerLedger } from './host/peer-scores.ts';
import { servePing } from './host/ping.ts';
import { createLimits, type Limits } from './limits/limits.ts';
import { type AnnounceHandshake, announceHandshake, type Role, role } from './protocols/announce.ts';
import { ChainSync, type SyncedChain } from './sync/chain-sync.ts';
import type { WarpPorts } from './sync/warp.ts';
import { Gossip, ROOMS, topicOf } from './wire/gossip.ts';
import { Notifications } from './wire/notifications.ts';
import type { Wire } from './wire/wire.ts';

/** What whoever runs a node decides of its network. */
export interface NetworkSettings {
  /** Multiaddresses to listen on; without any, this node only dials. */
  readonly listen: readonly string[];
  readonly publicAddresses: readonly string[];
  /** A node adds those of its chain spec. */
  readonly bootNodes: readonly string[];
  readonly reserved: readonly string[];
  /** Undefined: another identity at every start; a node with a base path keeps it with the chain's data. */
  readonly keyFile: string | undefined;
  readonly maxPeers: number;
  readonly mdns: boolean;
  readonly kad: boolean;
  /** How a chain that has not begun is filled (a node's default: `full`): block by block, or from a recent final state. */
  readonly sync?: 'full' | 'warp';
}

export interface NetworkOptions extends Required<NetworkSettings> {
  readonly blocks: Blocks;
  readonly events: ChainEvents;
  readonly chain: SyncedChain;
  readonly importer: BlockImport;
  readonly states: States & StateRanges;
  readonly runtime: RuntimeCalls;
  readonly verifyRange: WarpPorts['verifyRange'];
  readonly pool: NetworkPool;
  readonly checkBlock: BlockCheck;
  /** No chain can be higher by now than this. */
  readonly reachable: () => number;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly signatures: Pick<Signatures, 'verifyEd25519'>;
  readonly clock: Clock;
  readonly log: Log;

  /** Where the peers that this node has reached are kept; undefined: for this run alone. */
  readonly peersFile: string | undefined;
  readonly role: Role;
  readonly forkId: string | undefined;
  readonly agent: string;
  /** See {@link import('./host/host.ts').HostOptions}. */
  readonly privateAddresses: boolean;
}

interface Peer {
  readonly id: Libp2pPeerId;
  readonly role: Role;
  best: BlockRef;
}

const MAX_GRANDPA_BYTES = 1024 * 1024;
const GREET_TRIES_MS = [0, 500, 2_000, 8_000];

/** Of all places, those for peers that this node reaches out to itself: whoever fills the others does not choose these. */
export const outboundPlaces = (maxPeers: number): number => Math.max(2, Math.floor(maxPeers / 3));

/** Throws {@link NetworkError} when the key, an address or a port cannot be used. */
export async function createNetwork(options: NetworkOptions): Promise<Network> {
  const { blocks, clock, forkId, hashing, privateAddresses } = options;
  let network: Network | undefined;
  const isNamed = (peer: PeerId): boolean => network?.isNamed(peer) ?? false;
  const limits = createLimits({ clock, byAddress: !privateAddresses, isNamed });
  const rangeOf = (peer: PeerId): string | undefined => (isNamed(peer) ? undefined : limits.origins.rangeOf(peer));
  const ledger = new PeerLedger(() => clock.monotonic(), { rangeOf });
  const genesis = toHex(blocks.info().genesisHash).slice(2);
  const prefix = `/${genesis}${forkId === undefined ? '' : `/${forkId}`}`;
  const identity = await loadIdentity(options.keyFile);
  const host = await createHost(
    {
      identity,
      listen: options.listen,
      announce: options.publicAddresses,
      maxPeers: options.maxPeers,
      mdns: options.mdns,
      privateAddresses,
      isNamed,
      isNamedAddress: (address) => network?.isNamedAddress(address) ?? false,
      prefix,
      agent: options.agent,
      maxGossip: MAX_BLOCK_BYTES,
      topics: ROOMS.map((room) => topicOf(prefix, room)),
    },
    ledger,
    hashing,
    limits,
  );
  const known = await KnownPeers.open(options.peersFile);
  network = new Network(options, { host, ledger, prefix, identity, limits, known });
  await network.open();
  return network;
}

/** What {@link createNetwork} makes before the network. */
interface NetworkParts {
  readonly host: Host;
  readonly ledger: PeerLedger;
  readonly prefix: string;
  readonly identity: PrivateKey;
  readonly limits: Limits;
  readonly known: KnownPeers;
}

export class Network implements Service, NetworkStatus {
  readonly name = 'network';
  readonly #options: NetworkOptions;
  readonly #prefix: string;
  readonly #identity: PrivateKey;
  readonly #host: Host;
  readonly #ledger: PeerLedger;
  readonly #gossip: Gossip;
  readonly #limits: Limits;
  readonly #known: KnownPeers;
  readonly #dialer: Dialer;
  /** Undefined where nobody is looked for. */
  readonly #discovery: Discovery | undefined;
  readonly #peers = new Map<PeerId, Peer>();
  readonly #direct: {
    readonly announces: Notifications;
    readonly transactions: Notifications;
    readonly grandpa: Notifications;
  };
  readonly #sync: ChainSync;
  readonly #finality: Finality;
  readonly #transactions: Transactions;
  readonly #news: BlockNews;
  readonly #greetings = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  constructor(options: NetworkOptions, { host, ledger, prefix, identity, limits, known }: NetworkParts) {
    this.#options = options;
    this.#prefix = prefix;
    this.#identity = identity;
    this.#host = host;
    this.#ledger = ledger;
    this.#limits = limits;
    this.#known = known;
    const { blocks, pool, hashing, clock, log } = options;
    const charge = (peer: PeerId, cost: number, reason: string): void => this.#charge(peer, cost, reason);
    const count = (): void => {
      ledger.counters.received++;
    };
    const peers = this.#peers;
    this.#gossip = new Gossip({
      host,
      prefix,
      charge,
      count,
      isBanned: (peer) => ledger.isBanned(peer),
      clock,
      limits,
      log,
    });
    this.#dialer = new Dialer({
      host,
      ledger,
      clock,
      log,
      known,
      wantMore: () => this.#wantsMore(),
      privateAddresses: options.privateAddresses,
    });

    const ports = { libp2p: host, charge, count, clock, limits, log };
    this.#discovery = options.kad
      ? new Discovery({
          ...ports,
          host,
          prefix,
          known,
          peers: () => [...peers.keys()],
          wantMore: () => this.#wantsMore(),
          discovered: (peer, addresses) => this.#dialer.discovered(peer, addresses),
          privateAddresses: options.privateAddresses,
        })
      : undefined;
    const announces = new Notifications(
      {
        name: `${prefix}/block-announces/1`,
        maxMessage: 64 * 1024,
        perSecond: 20,
        burst: 200,
        handshake: () => this.#handshake(),
        onHandshake: (peer, bytes) => this.#onHandshake(peer, bytes),
        onMessage: (peer, bytes) => {
          if (peers.has(peer)) this.#news.announced(peer, bytes);
        },
        onOpen: (peer) => this.#onOpen(peer),
        onClose: () => {},
      },
      ports,
    );
    const roleOnly = { handshake: () => encode(role, options.role), onHandshake: (peer: PeerId) => peers.has(peer) };
    const transactions = new Notifications(
      {
        ...roleOnly,
        name: `${prefix}/transactions/1`,
        maxMessage: MAX_TRANSACTIONS_BYTES,
        perSecond: 100,
        burst: 1_000,
        onMessage: (peer, bytes) => this.#transactions.told(peer, bytes),
        onOpen: () => {},
        onClose: () => {},
      },
      ports,
    );
    const grandpa = new Notifications(
      {
        ...roleOnly,
        name: `${prefix}/grandpa/1`,
        maxMessage: MAX_GRANDPA_BYTES,
        perSecond: 500,
        burst: 5_000,
        onMessage: (peer, bytes) => this.#finality.told(peer, bytes),
        onOpen: (peer) => this.#finality.opened(peer),
        onClose: (peer) => this.#finality.closed(peer),
      },
      ports,
    );
    this.#direct = { announces, transactions, grandpa };
    this.#sync = new ChainSync({
      host,
      prefix,
      mode: options.sync,
      blocks,
      chain: options.chain,
      reachable: options.reachable,
      importer: options.importer,
      states: options.states,
      runtime: options.runtime,
      verifyRange: options.verifyRange,
      hashing,
      signatures: options.signatures,
      clock,
      log,
      peers: function* () {
        for (const [id, { role: theirs, best }] of peers) if (theirs !== 'LIGHT') yield { id, best };
      },
      charge,
      count,
      limits,
      drop: (peer, reason) => {
        log('warn', `a peer is left: ${reason}`, { peer });
        this.#leave(peer);
      },
    });
    const sync = this.#sync;
    this.#finality = new Finality({
      direct: grandpa,
      sync: sync.blocks,
      charge,
      room: this.#gossip.join({
        name: 'grandpa',
        maxMessage: MAX_GRANDPA_BYTES,
        perSecond: 1_000,
        burst: 10_000,
        validate: (from, bytes) => this.#finality.heard(from, bytes),
      }),
    });
    this.#transactions = new Transactions({
      pool,
      hashing,
      direct: transactions,
      peers: () => peers.keys(),
      isMajorSyncing: () => sync.isMajorSyncing(),
      limits,
      clock,
      charge,
      room: this.#gossip.join({
        name: 'transactions',
        maxMessage: MAX_TRANSACTIONS_BYTES,
        perSecond: 200,
        burst: 2_000,
        validate: (from, bytes) => this.#transactions.heard(from, bytes),
      }),
    });
    this.#news = new BlockNews({
      blocks,
      hashing,
      checkBlock: options.checkBlock,
      direct: announces,
      sync: sync.blocks,
      isMajorSyncing: () => sync.isMajorSyncing(),
      charge,
      peers: function* () {
        for (const [id, { best }] of peers) yield { id, bestHash: best.hash };
      },
      onBest: (peer, hash, number) => {
        const known = peers.get(peer);
        if (known !== undefined) known.best = { hash, number };
      },
      room: this.#gossip.join({
        name: 'blocks',
        maxMessage: MAX_BLOCK_BYTES,
        perSecond: 20,
        burst: 100,
        validate: (from, bytes) => this.#news.heard(from, bytes),
      }),
    });
  }

  /** What the voter sends through; what it receives comes once it is attached. */
  get grandpa(): GrandpaNetwork {
    return this.#finality;
  }

  /** Resolves when the chain stands where it goes on block by block: before that a voter may not begin. */
  get grounded(): Promise<void> {
    return this.#sync.grounded;
  }

  attachVoter(voter: VoterPort): void {
    this.#finality.attach(voter);
  }

  /** For further protocols. */
  wire(): Wire {
    const { clock, log } = this.#options;
    return {
      host: this.#host,
      prefix: this.#prefix,
      publicKey: this.#identity.publicKey.raw,
      sign: async (message) => this.#identity.sign(message),
      peers: () => [...this.#peers].flatMap(([id, { role: theirs }]) => (theirs === 'LIGHT' ? [] : [id])),
      isMajorSyncing: () => this.isMajorSyncing(),
      join: (options) => this.#gossip.join(options),
      charge: (peer, cost, reason) => this.#charge(peer, cost, reason),
      limits: this.#limits,
      clock,
      log,
    };
  }

  /** Listens. Called by {@link createNetwork}. */
  async open(): Promise<void> {
    const { bootNodes, reserved } = this.#options;
    for (const address of bootNodes) this.#dialer.keep(address, false);
    for (const address of reserved) this.#dialer.keep(address, true);
    const { announces, transactions, grandpa } = this.#direct;
    for (const each of [announces, transactions, grandpa, this.#sync]) await each.register();
    await this.#discovery?.register();
    await servePing(this.#host);
    this.#host.addEventListener('peer:connect', ({ detail }) => this.#greet(detail));
    this.#host.addEventListener('peer:disconnect', ({ detail }) => this.#forget(detail.toString()));
    this.#host.addEventListener('peer:identify', ({ detail: { peerId, connection, listenAddrs } }) => {
      this.#discovery?.identified(peerId.toString(), connection.remoteAddr, listenAddrs);
    });
    this.#host.addEventListener('peer:discovery', ({ detail }) => {
      this.#dialer.discovered(detail.id.toString(), detail.multiaddrs);
    });
    try {
      await this.#host.start();
    } catch (problem) {
      throw new NetworkError('LISTEN', `the network could not listen: ${(problem as Error).message}`, {
        cause: problem,
      });
    }
    this.#gossip.start();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { events, log } = this.#options;
    for (const address of this.listenAddresses()) log('info', `listening at ${address}`);
    const unsubscribe = events.subscribe((event) => this.#news.onChainEvent(event));
    const stop = (): void => this.#stop.abort();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    const until = this.#stop.signal;
    try {
      await Promise.all([
        this.#sync.run(until),
        this.#transactions.run(until),
        this.#dialer.run(until),
        this.#discovery?.run(until),
      ]);
    } finally {
      stop();
      unsubscribe();
      await this.close();
    }
  }

  /** For one that was created and never run. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#greetings);
    await this.#host.stop();
  }

  // ---- status ------------------------------------------------------------------------------------------------

  peerId(): string {
    return this.#host.peerId.toString();
  }

  listenAddresses(): readonly string[] {
    return this.#host.getMultiaddrs().map(String);
  }

  peers(): readonly PeerInfo[] {
    return [...this.#peers].map(([peerId, each]) => ({ peerId, roles: each.role, best: each.best }));
  }

  isMajorSyncing(): boolean {
    return this.#sync.isMajorSyncing();
  }

  syncTarget(): number | undefined {
    return this.#sync.target();
  }

  async addReservedPeer(address: string): Promise<void> {
    this.#dialer.keep(address, true);
  }

  async removeReservedPeer(peer: string): Promise<void> {
    this.#dialer.removeReserved(peer);
  }

  reservedPeers(): readonly string[] {
    return this.#dialer.reserved();
  }

  /** Messages that peers have brought, and bans of peers, since the start. */
  traffic(): { readonly received: number; readonly bans: number } {
    return this.#ledger.counters;
  }

  /** Whether the operator named it, as a boot node or a reserved peer. */
  isNamed(peer: PeerId): boolean {
    return this.#dialer.isKept(peer);
  }

  isNamedAddress(address: Multiaddr): boolean {
    return this.#dialer.isNamedAddress(address);
  }

  isBanned(peer: PeerId): boolean {
    return this.#ledger.isBanned(peer);
  }

  // ---- peers -------------------------------------------------------------------------------------------------

  #charge(peer: PeerId, cost: number, reason: string): void {
    const { log } = this.#options;
    // What it had sent before it was cut off is still being looked at.
    if (this.#ledger.isBanned(peer)) return;
    log('debug', `a peer costs ${cost}: ${reason}`, { peer });
    if (cost >= FEE.tooFast) this.#limits.origins.didHarm(peer);
    if (!this.#ledger.charge(peer, cost)) return;
    log('warn', `a peer is banned: ${reason}`, { peer });
    this.#leave(peer);
  }

  #leave(peer: PeerId): void {
    this.#forget(peer);
    this.#host.hangUp(peerIdFromString(peer)).catch((problem: unknown) => {
      this.#options.log('debug', 'a connection could not be closed', { peer, problem: String(problem) });
    });
  }

  #forget(peer: PeerId): void {
    this.#peers.delete(peer);
    this.#finality.closed(peer);
    for (const each of Object.values(this.#direct)) each.close(peer);
    this.#sync.forget(peer);
    this.#discovery?.disconnected(peer);
    // What libp2p would keep of every identity that was ever here, for hours.
    if (this.#dialer.isKept(peer) || this.#host.status !== 'started') return;
    this.#host.peerStore.delete(peerIdFromString(peer)).catch((problem: unknown) => {
      this.#options.log('debug', 'a peer could not be forgotten', { peer, problem: String(problem) });
    });
  }

  /** Whether this node reached out to the peer, and not the peer to this node. */
  #isOutbound(id: Libp2pPeerId): boolean {
    return this.#host.getConnections(id).some(({ direction }) => direction === 'outbound');
  }

  /** Peers by who reached out to whom; those whom the operator named are counted apart. */
  #counts(): { readonly outbound: number; readonly inbound: number } {
    let [outbound, inbound] = [0, 0];
    for (const [peer, { id }] of this.#peers) {
      if (this.#dialer.isKept(peer)) continue;
      if (this.#isOutbound(id)) outbound++;
      else inbound++;
    }
    return { outbound, inbound };
  }

  #wantsMore(): boolean {
    return this.#counts().outbound < outboundPlaces(this.#options.maxPeers);
  }

  /** Whether there is a place for a peer that shakes hands now. */
  #hasPlace(peer: PeerId, id: Libp2pPeerId): boolean {
    if (this.#dialer.isKept(peer)) return true;
    const { maxPeers } = this.#options;
    const { outbound, inbound } = this.#counts();
    if (outbound + inbound >= maxPeers) return false;
    return this.#isOutbound(id) || inbound < maxPeers - outboundPlaces(maxPeers);
  }

  #handshake(): Uint8Array {
    const { genesisHash, best } = this.#options.blocks.info();
    return encode(announceHandshake, {
      role: this.#options.role,
      bestNumber: best.number,
      bestHash: best.hash,
      genesisHash,
    });
  }

  #onHandshake(peer: PeerId, bytes: Uint8Array): boolean {
    const { blocks } = this.#options;
    if (this.#ledger.isBanned(peer)) return false;
    let shake: AnnounceHandshake;
    try {
      shake = decode(announceHandshake, bytes.slice());
    } catch (problem) {
      if (!(problem instanceof ScaleError)) throw problem;
      this.#charge(peer, FEE.malformed, `a malformed handshake: ${problem.message}`);
      return false;
    }
    const { role: theirs, bestNumber, bestHash, genesisHash } = shake;
    if (!equalBytes(genesisHash, blocks.info().genesisHash)) {
      this.#charge(peer, FEE.otherChain, 'it is on another chain');
      return false;
    }
    const known = this.#peers.get(peer);
    const id = peerIdFromString(peer);
    if (known === undefined && !this.#hasPlace(peer, id)) return false;
    const best = { hash: bestHash, number: bestNumber };
    if (known !== undefined) {
      known.best = best;
      return true;
    }
    this.#peers.set(peer, { id, role: theirs, best });
    const reached = this.#host.getConnections(id).find(({ direction }) => direction === 'outbound');
    if (reached !== undefined) this.#known.reached(peer, reached.remoteAddr);
    if (theirs !== 'LIGHT') this.#sync.blocks.take({ type: 'connected', peer, best });
    this.#greet(id);
    return true;
  }

  #onOpen(peer: PeerId): void {
    const known = this.#peers.get(peer);
    if (known === undefined) return;
    const { transactions, grandpa } = this.#direct;
    this.#follow(
      (async () => {
        for (const wait of GREET_TRIES_MS) {
          await this.#wait(wait);
          if (this.#stop.signal.aborted || this.#peers.get(peer) !== known) return;
          const opened = await Promise.all(
            [transactions, grandpa].map((each) => each.open(known.id, this.#stop.signal)),
          );
          if (opened.every(Boolean)) return;
        }
      })(),
    );
  }

  /** Opens this node's stream of announcements, with which all else begins. */
  #greet(id: Libp2pPeerId): void {
    const peer = id.toString();
    this.#follow(
      (async () => {
        for (const wait of GREET_TRIES_MS) {
          await this.#wait(wait);
          if (this.#stop.signal.aborted || this.#ledger.isBanned(peer)) return;
          if (this.#host.getConnections(id).length === 0) return;
          if (await this.#direct.announces.open(id, this.#stop.signal)) return;
        }
      })(),
    );
  }

  #follow(work: Promise<void>): void {
    const done = work
      .catch((problem: unknown) => this.#options.log('debug', 'a greeting failed', { problem: String(problem) }))
      .finally(() => this.#greetings.delete(done));
    this.#greetings.add(done);
  }

  #wait(ms: number): Promise<void> {
    if (ms === 0 || this.#stop.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        cancel();
        this.#stop.signal.removeEventListener('abort', done);
        resolve();
      };
      const cancel = this.#options.clock.after(ms, done);
      this.#stop.signal.addEventListener('abort', done, { once: true });
    });
  }
}
