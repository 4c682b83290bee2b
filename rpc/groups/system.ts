/** `system_*`: the node and the network around it. */
import { blake2b } from '@noble/hashes/blake2.js';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { decodeSs58 } from '../../runtime/primitives/ss58.ts';
import { invalidParams, RpcError } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { hash, hex, optional, text } from '../server/params.ts';
import type { ChainView } from './chain-view.ts';
import type { RpcContext } from './context.ts';
import { decodeU32, nextNonce } from './nonces.ts';

export interface SystemContext extends RpcContext {
  readonly view: ChainView;
}

const { method } = definitions<SystemContext>();

export const health = ({ network, shouldHavePeers = false }: Pick<RpcContext, 'network' | 'shouldHavePeers'>) => {
  const peers = network.peers().length;
  return { peers, isSyncing: network.isMajorSyncing(), shouldHavePeers };
};

function accountOf(address: string): Uint8Array {
  try {
    const account = address.startsWith('0x') ? fromHex(address) : decodeSs58(blake2b, address).key;
    if (account.length === 32) return account;
  } catch {
    // Told below.
  }
  throw invalidParams('expected an account as SS58');
}

const peerError = (problem: unknown): RpcError =>
  new RpcError(2000, problem instanceof Error ? problem.message : String(problem));

const methods = [
  method('system_name', [], ({ node }) => node.name),
  method('system_version', [], ({ node }) => node.version),
  method('system_chain', [], ({ chain }) => chain.name),
  method('system_chainType', [], ({ chain }) => chain.type),
  method('system_properties', [], ({ chain }) => chain.properties),
  method('system_health', [], health),
  method('system_localPeerId', [], ({ network }) => network.peerId()),
  method('system_localListenAddresses', [], ({ network }) => network.listenAddresses()),
  method(
    'system_peers',
    [],
    ({ network }) =>
      network.peers().map(({ peerId, roles, best }) => ({
        peerId,
        roles,
        bestHash: hexOf(best.hash),
        bestNumber: best.number,
      })),
    { unsafe: true },
  ),
  method('system_nodeRoles', [], ({ node }) => node.roles),
  method('system_syncState', [], ({ client, network, startingBlock }) => {
    const { best } = client.blocks.info();
    return {
      startingBlock: startingBlock ?? 0,
      currentBlock: best.number,
      highestBlock: Math.max(best.number, network.syncTarget() ?? 0),
    };
  }),
  method(
    'system_addReservedPeer',
    [text('peer')],
    async ({ network }, [peer]) => {
      try {
        await network.addReservedPeer(peer);
      } catch (problem) {
        throw peerError(problem);
      }
      return null;
    },
    { unsafe: true },
  ),
  method(
    'system_removeReservedPeer',
    [text('peerId')],
    async ({ network }, [peerId]) => {
      try {
        await network.removeReservedPeer(peerId);
      } catch (problem) {
        throw peerError(problem);
      }
      return null;
    },
    { unsafe: true },
  ),
  method('system_reservedPeers', [], ({ network }) => network.reservedPeers()),
  method(
    'system_accountNextIndex',
    [text('account', 128)],
    ({ view, client }, [address]) => {
      const account = accountOf(address);
      const onChain = decodeU32(client.runtime.call(view.best(), 'AccountNonceApi_account_nonce', account));
      return nextNonce(client.pool.readyOf(account), account, onChain);
    },
    { aliases: ['account_nextIndex'] },
  ),
  method(
    'system_dryRun',
    [hex('extrinsic'), optional(hash('at'))],
    ({ view }, [extrinsic, at], session) =>
      view.call(session, at ?? view.best(), 'BlockBuilder_apply_extrinsic', extrinsic),
    { unsafe: true, aliases: ['system_dryRunAt'] },
  ),
];

export const systemGroup = (context: SystemContext): Group => group(context, methods);
