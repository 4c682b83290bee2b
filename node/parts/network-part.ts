/** The node among others: blocks, votes and transactions over libp2p. */
import { join } from 'node:path';
import type { Network } from '../../p2p/network.ts';
import type { BlockImport, NetworkStatus } from '../ports/chain.ts';
import { verifyRange } from '../state/range-proof.ts';
import { extrinsicsRoot } from '../state/trie.ts';
import type { ChainPart } from './chain-part.ts';
import type { Ground } from './ground.ts';

/** What a node without a network says of it. */
export const ALONE: NetworkStatus = {
  peerId: () => '',
  listenAddresses: () => [],
  peers: () => [],
  isMajorSyncing: () => false,
  syncTarget: () => undefined,
  traffic: () => ({ received: 0, bans: 0 }),
  addReservedPeer: () => Promise.reject(new Error('this node runs without a network')),
  removeReservedPeer: () => Promise.reject(new Error('this node runs without a network')),
  reservedPeers: () => [],
};

/** Undefined where the options name no network. Its modules are loaded when asked for: a node alone starts without them. */
export async function openNetwork(
  { options, directory, hashing, signatures, clock, open }: Ground,
  { chain, blocks, pool, validator }: ChainPart,
  importer: BlockImport,
): Promise<Network | undefined> {
  const { spec, log, network: settings } = options;
  if (settings === undefined) return undefined;
  const { createNetwork } = await import('../../p2p/network.ts');
  const { blockCheck, highestPossible } = await import('../../p2p/chain/block-check.ts');
  const network = await createNetwork({
    ...settings,
    bootNodes: [...spec.bootNodes, ...settings.bootNodes],
    keyFile: settings.keyFile ?? (options.basePath === undefined ? undefined : join(directory, 'node-key')),
    peersFile: options.basePath === undefined ? undefined : join(directory, 'known-peers'),
    blocks,
    events: blocks,
    chain,
    importer,
    states: chain,
    runtime: chain,
    verifyRange: (root, proof, after) => verifyRange(hashing.blake2_256, root, proof, after),
    pool,
    reachable: () => highestPossible({ blocks, slotMs: chain.slotMs, clock }),
    checkBlock: blockCheck({
      blocks,
      authorities: (parent) => chain.auraAuthorities(parent),
      extrinsicsRoot: (extrinsics) => extrinsicsRoot(hashing.blake2_256, extrinsics),
      slotMs: chain.slotMs,
      hashing,
      signatures,
      clock,
    }),
    hashing,
    signatures,
    clock,
    log,
    sync: settings.sync ?? 'full',
    role: validator ? 'AUTHORITY' : 'FULL',
    forkId: spec.forkId,
    agent: `openledger/${options.version}`,
    privateAddresses: spec.chainType !== 'Live',
  });
  open.defer(() => network.close());
  return network;
}
