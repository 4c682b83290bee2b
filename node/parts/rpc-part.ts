/** JSON-RPC and the blobs' HTTP, on one port. */
import type { GrandpaVoter } from '../../consensus/grandpa/driver.ts';
import { ledgerGroup } from '../../rpc/groups/ledger.ts';
import { health } from '../../rpc/groups/system.ts';
import { WALLET_ORIGINS } from '../../rpc/server/access.ts';
import { type RpcAddress, type RpcServer, rpcServer } from '../../rpc/server/server.ts';
import { standardGroups } from '../../rpc/standard-groups.ts';
import { blobHandler } from '../blobs/http.ts';
import type { Client, NetworkStatus } from '../ports/chain.ts';
import type { AttributionPart } from './attribution-part.ts';
import { type ChainPart, SESSION_KEYS } from './chain-part.ts';
import type { Ground } from './ground.ts';

export interface RpcPart {
  readonly server: RpcServer;
  readonly address: RpcAddress;
}

/** Listens. Throws when the address is taken. */
export async function openRpc(
  { options, hashing }: Ground,
  { blocks, keystore, validator }: ChainPart,
  { blobs, fetchBlob, checks, state, hub, nodeKey }: AttributionPart,
  voter: GrandpaVoter,
  client: Client,
  network: NetworkStatus,
): Promise<RpcPart> {
  const { spec, log } = options;
  const shouldHavePeers = options.network !== undefined && spec.chainType !== 'Development';
  const standard = standardGroups({
    client,
    network,
    keystore,
    hashing,
    chain: { name: spec.name, type: spec.chainType, properties: { ...spec.properties } },
    node: { name: options.name, version: options.version, roles: [validator ? 'Authority' : 'Full'] },
    sessionKeyTypes: SESSION_KEYS,
    startingBlock: blocks.info().best.number,
    roundStates: () => voter.roundState(),
    shouldHavePeers,
    log,
  });
  const { maxConnections, ...listening } = options.rpc;
  const server = rpcServer({
    ...listening,
    // Whoever tries things out has a wallet in the browser; on a live chain its origin must be named.
    guests: spec.chainType === 'Development' ? WALLET_ORIGINS : [],
    ...(maxConnections !== undefined && { limits: { connections: maxConnections } }),
    groups: [
      ...standard,
      ledgerGroup({ hub, checks, host: state, genesisHash: () => blocks.info().genesisHash, nodeKey }),
    ],
    routes: [blobHandler(blobs, fetchBlob)],
    health: () => {
      const report = health({ network, shouldHavePeers });
      return { report, ready: !report.isSyncing && (report.peers > 0 || !shouldHavePeers) };
    },
    log,
  });
  return { server, address: await server.listen() };
}
