/** The libp2p node: transports, encryption, multiplexing, and who may connect. */
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { type GossipSub, type GossipSubComponents, gossipsub, StrictNoSign } from '@libp2p/gossipsub';
import { type Identify, identify } from '@libp2p/identify';
import type { ConnectionGater, Libp2p, MultiaddrConnection, PrivateKey, ServiceMap } from '@libp2p/interface';
import { mdns } from '@libp2p/mdns';
import { tcp } from '@libp2p/tcp';
import { webSockets } from '@libp2p/websockets';
import type { Multiaddr } from '@multiformats/multiaddr';
import { createLibp2p, type ServiceFactoryMap } from 'libp2p';
import type { Hashing } from '../../runtime/host.ts';
import { concatBytes, utf8 } from '../../runtime/primitives/bytes.ts';
import type { Limits } from '../limits/limits.ts';
import { countingRegistrar } from '../wire/rooms-registrar.ts';
import { isPublic, rangeOf } from './addresses.ts';
import { NetworkError } from './errors.ts';
import type { PeerId, PeerLedger } from './peer-scores.ts';

export interface HostOptions {
  readonly identity: PrivateKey;
  readonly listen: readonly string[];
  /** Addresses under which others reach this node, where they are not those it listens on. */
  readonly announce: readonly string[];
  readonly maxPeers: number;
  readonly mdns: boolean;
  /** Networks of one machine or one house: private addresses are dialled, and many nodes may share one. */
  readonly privateAddresses: boolean;
  /** Whether the operator named the peer, as a boot node or a reserved one: no limit of an address range is for it. */
  readonly isNamed: (peer: PeerId) => boolean;
  /** Whether the operator named the address: it is dialled wherever it leads. */
  readonly isNamedAddress: (address: Multiaddr) => boolean;
  /** `/<genesis hash>[/<fork id>]`. */
  readonly prefix: string;
  readonly agent: string;
  readonly maxGossip: number;
  /** The rooms' full names; what is said elsewhere is not heard. */
  readonly topics: readonly string[];
}

export interface HostServices extends ServiceMap {
  readonly identify: Identify;
  readonly gossip: GossipSub;
}
export type Host = Libp2p<HostServices>;

const MESSAGE_ID = utf8('openledger/gossip');
/** Connections with one range of addresses. */
export const MAX_PER_RANGE = 8;
/** Connections that one peer has opened. */
const MAX_PER_PEER = 2;
/** Connections beyond peers: they are being greeted, or said goodbye to. */
const SPARE_CONNECTIONS = 8;
/** Connections of those whom the operator named, whatever else there is. */
const NAMED_CONNECTIONS = 64;
/** Of streams: what may be under way to one that is not read, and how many there may be. */
const MAX_WINDOW = 512 * 1024;
const MAX_STREAMS = 192;

export async function createHost(
  options: HostOptions,
  ledger: PeerLedger,
  hashing: Pick<Hashing, 'blake2_256'>,
  limits: Limits,
): Promise<Host> {
  const { maxPeers, prefix, isNamed } = options;
  let host: Host | undefined;
  /** Inbound, let in and not gone yet, whether the host lists them already or not. */
  const admitted = new Map<MultiaddrConnection, PeerId>();
  /** Connections with the range of an address; none count on networks of one house. */
  const inRange = (address: Multiaddr): number => {
    if (options.privateAddresses || host === undefined) return 0;
    const range = rangeOf(address);
    const outbound = host.getConnections().filter(({ direction }) => direction === 'outbound');
    let count = 0;
    for (const { remoteAddr } of [...admitted.keys(), ...outbound]) if (rangeOf(remoteAddr) === range) count++;
    return count;
  };
  const isFull = (peer: PeerId): boolean => {
    let own = 0;
    let unnamed = 0;
    for (const each of admitted.values()) {
      if (each === peer) own++;
      if (!isNamed(each)) unnamed++;
    }
    return own >= MAX_PER_PEER || (!isNamed(peer) && unnamed >= maxPeers + SPARE_CONNECTIONS);
  };
  const gater: ConnectionGater = {
    denyDialPeer: (peer) => ledger.isBanned(peer.toString()),
    // Addresses are what others say: none of them leads this node to its own machine, or into the house that it stands in.
    denyDialMultiaddr: (address) => !options.privateAddresses && !isPublic(address) && !options.isNamedAddress(address),
    denyInboundEncryptedConnection: (peer) => ledger.isBanned(peer.toString()),
    // One house must not be able to take all places of this node. Who it is shows later: those whom the operator named come
    // in nevertheless, and those who knock at the same moment are counted again then.
    denyInboundConnection: ({ remoteAddr }) => inRange(remoteAddr) >= 2 * MAX_PER_RANGE,
    denyInboundUpgradedConnection: (id, connection) => {
      const peer = id.toString();
      const { remoteAddr } = connection;
      const outsider = !isNamed(peer) && !options.privateAddresses;
      if (outsider && (inRange(remoteAddr) >= MAX_PER_RANGE || ledger.isRangeBanned(rangeOf(remoteAddr)))) return true;
      if (isFull(peer)) return true;
      admitted.set(connection, peer);
      connection.addEventListener('close', () => admitted.delete(connection), { once: true });
      limits.origins.connected(peer, remoteAddr);
      limits.throttle.watch(peer, connection);
      return false;
    },
    denyOutboundUpgradedConnection: (peer, connection) => {
      limits.origins.connected(peer.toString(), connection.remoteAddr);
      limits.throttle.watch(peer.toString(), connection);
      return false;
    },
  };
  const rooms = gossipsub({
    globalSignaturePolicy: StrictNoSign,
    allowPublishToZeroTopicPeers: true,
    ignoreDuplicatePublishError: true,
    // Rooms' validators are waited for in any case; with this on, what they accept would still not be passed on.
    asyncValidation: false,
    doPX: false,
    // What is said elsewhere would be hashed and kept, and no validator would see it.
    allowedTopics: [...options.topics],
    // How many may share an address is decided at the door. Here whoever had been at the same address within an hour
    // would count, banned or not, until honest peers of that address were no longer listened to.
    scoreParams: { IPColocationFactorWeight: 0 },
    maxInboundStreams: 2,
    maxInboundDataLength: options.maxGossip + 4_096,
    maxOutboundBufferSize: options.maxGossip + (1 << 20),
    decodeRpcLimits: {
      maxSubscriptions: 64,
      maxMessages: 512,
      maxIhaveMessageIDs: 1_024,
      maxIwantMessageIDs: 1_024,
      maxIdontwantMessageIDs: 256,
      maxControlMessages: 256,
      maxPeerInfos: 0,
    },
    // Messages are not signed by whoever sends them on: what they hold decides which are the same.
    msgIdFn: (message) =>
      hashing.blake2_256(concatBytes(MESSAGE_ID, utf8(message.topic), message.data)).subarray(0, 20),
  });
  try {
    const created = await createLibp2p<HostServices>({
      start: false,
      privateKey: options.identity,
      nodeInfo: { userAgent: options.agent },
      addresses: { listen: [...options.listen], announce: [...options.announce] },
      transports: [tcp(), webSockets()],
      connectionEncrypters: [noise()],
      streamMuxers: [
        yamux({
          maxInboundStreams: MAX_STREAMS,
          streamOptions: { maxStreamWindowSize: MAX_WINDOW, maxReadBufferLength: 2 * MAX_WINDOW },
        }),
      ],
      connectionGater: gater,
      connectionManager: {
        maxConnections: 2 * maxPeers + SPARE_CONNECTIONS + NAMED_CONNECTIONS,
        inboundConnectionThreshold: 50,
        maxIncomingPendingConnections: 20,
        maxParallelDials: 16,
        maxDialQueueLength: 64,
        maxPeerAddrsToDial: 8,
        reconnectRetries: 0,
      },
      // Peers of other implementations do not answer its pings in time; silence is noticed by the protocols.
      connectionMonitor: { enabled: false },
      ...(options.mdns && { peerDiscovery: [mdns({ serviceTag: `_openledger-${prefix.slice(1, 13)}._udp.local` })] }),
      services: {
        identify: identify({ maxInboundStreams: 2, maxMessageSize: 8_192, runOnConnectionOpen: true }),
        // Libp2p looks its components up when they are asked for: there is nothing to be spread.
        gossip: ({ peerId, privateKey, peerStore, registrar, connectionManager, logger }: GossipSubComponents) =>
          rooms({
            ...{ peerId, privateKey, peerStore, connectionManager, logger },
            registrar: countingRegistrar(registrar, limits.held.incoming),
          }),
      } as unknown as ServiceFactoryMap<HostServices>,
    });
    host = created as unknown as Host;
    return host;
  } catch (problem) {
    throw new NetworkError('LISTEN', `the network could not be set up: ${(problem as Error).message}`, {
      cause: problem,
    });
  }
}
