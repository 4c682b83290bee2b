/** The libp2p node: transports, encryption, multiplexing, and who may connect. */
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { type GossipSub, gossipsub, StrictNoSign } from '@libp2p/gossipsub';
import { type Identify, identify } from '@libp2p/identify';
import type { ConnectionGater, Libp2p, MultiaddrConnection, PrivateKey, ServiceMap } from '@libp2p/interface';
import { kadDHT, passthroughMapper, removePrivateAddressesMapper } from '@libp2p/kad-dht';
import { mdns } from '@libp2p/mdns';
import { tcp } from '@libp2p/tcp';
import { webSockets } from '@libp2p/websockets';
import type { Multiaddr } from '@multiformats/multiaddr';
import { createLibp2p, type ServiceFactoryMap } from 'libp2p';
import type { Hashing } from '../../runtime/host.ts';
import { concatBytes, utf8 } from '../../runtime/primitives/bytes.ts';
import { NetworkError } from './errors.ts';
import type { PeerId, PeerLedger } from './peer-scores.ts';
import { Pinger } from './ping.ts';

export interface HostOptions {
  readonly identity: PrivateKey;
  readonly listen: readonly string[];
  /** Addresses under which others reach this node, where they are not those it listens on. */
  readonly announce: readonly string[];
  readonly maxPeers: number;
  readonly mdns: boolean;
  readonly kad: boolean;
  /** Networks of one machine or one house: private addresses are passed on, and many nodes may share one. */
  readonly privateAddresses: boolean;
  /** Whether the operator named the peer, as a boot node or a reserved one: no limit of an address range is for it. */
  readonly isNamed: (peer: PeerId) => boolean;
  /** `/<genesis hash>[/<fork id>]`. */
  readonly prefix: string;
  readonly agent: string;
  readonly maxGossip: number;
}

export interface HostServices extends ServiceMap {
  readonly identify: Identify;
  readonly gossip: GossipSub;
}
export type Host = Libp2p<HostServices>;

const MESSAGE_ID = utf8('openledger/gossip');
/** Connections with one range of addresses. */
export const MAX_PER_RANGE = 8;

export async function createHost(
  options: HostOptions,
  ledger: PeerLedger,
  hashing: Pick<Hashing, 'blake2_256'>,
): Promise<Host> {
  const { maxPeers, prefix } = options;
  let host: Host | undefined;
  /** Let in and not gone yet, whether the host lists them already or not. */
  const admitted = new Set<MultiaddrConnection>();
  /** Connections with the range of an address; none count on networks of one house. */
  const inRange = (address: Multiaddr): number => {
    if (options.privateAddresses || host === undefined) return 0;
    const range = rangeOf(address);
    const outbound = host.getConnections().filter(({ direction }) => direction === 'outbound');
    let count = 0;
    for (const { remoteAddr } of [...admitted, ...outbound]) if (rangeOf(remoteAddr) === range) count++;
    return count;
  };
  const gater: ConnectionGater = {
    denyDialPeer: (peer) => ledger.isBanned(peer.toString()),
    denyDialMultiaddr: () => false,
    denyInboundEncryptedConnection: (peer) => ledger.isBanned(peer.toString()),
    // One house must not be able to take all places of this node. Who it is shows later: those whom the operator named come
    // in nevertheless, and those who knock at the same moment are counted again then.
    denyInboundConnection: ({ remoteAddr }) => inRange(remoteAddr) >= 2 * MAX_PER_RANGE,
    denyInboundUpgradedConnection: (peer, connection) => {
      if (!options.isNamed(peer.toString()) && inRange(connection.remoteAddr) >= MAX_PER_RANGE) return true;
      admitted.add(connection);
      connection.addEventListener('close', () => admitted.delete(connection), { once: true });
      return false;
    },
  };
  try {
    const created = await createLibp2p<HostServices>({
      start: false,
      privateKey: options.identity,
      nodeInfo: { userAgent: options.agent },
      addresses: { listen: [...options.listen], announce: [...options.announce] },
      transports: [tcp(), webSockets()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      connectionGater: gater,
      connectionManager: {
        maxConnections: maxPeers * 2,
        inboundConnectionThreshold: 50,
        maxIncomingPendingConnections: 20,
        reconnectRetries: 0,
      },
      // Peers of other implementations do not answer its pings in time; silence is noticed by the protocols.
      connectionMonitor: { enabled: false },
      ...(options.mdns && { peerDiscovery: [mdns({ serviceTag: `_openledger-${prefix.slice(1, 13)}._udp.local` })] }),
      services: {
        identify: identify({ maxInboundStreams: 8, runOnConnectionOpen: true }),
        gossip: gossipsub({
          globalSignaturePolicy: StrictNoSign,
          allowPublishToZeroTopicPeers: true,
          ignoreDuplicatePublishError: true,
          // Rooms' validators are waited for in any case; with this on, what they accept would still not be passed on.
          asyncValidation: false,
          doPX: false,
          // How many may share an address is decided at the door. Here whoever had been at the same address within an hour
          // would count, banned or not, until honest peers of that address were no longer listened to.
          scoreParams: { IPColocationFactorWeight: 0 },
          maxInboundDataLength: options.maxGossip + 4_096,
          maxOutboundBufferSize: 4 * options.maxGossip,
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
        }),
        ...(options.kad && {
          ping: (components: ConstructorParameters<typeof Pinger>[0]) => new Pinger(components),
          kad: kadDHT({
            protocol: `${prefix}/kad`,
            clientMode: false,
            peerInfoMapper: options.privateAddresses ? passthroughMapper : removePrivateAddressesMapper,
          }),
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

/** /24 of IPv4, /48 of IPv6; an IPv4 address in IPv6's clothes is one of IPv4. */
export function rangeOf(address: Multiaddr): string {
  const [first] = address.getComponents();
  const value = first?.value ?? '';
  const [dotted] = value.match(/\d+\.\d+\.\d+\.\d+$/) ?? [];
  if (dotted !== undefined) return dotted.split('.').slice(0, 3).join('.');
  if (first?.name !== 'ip6') return value;
  const [head = '', tail] = value.toLowerCase().split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - left.length - right.length;
  const groups = [...left, ...new Array<string>(Math.max(0, zeros)).fill('0'), ...right];
  return groups
    .slice(0, 3)
    .map((each) => Number.parseInt(each, 16).toString(16))
    .join(':');
}
