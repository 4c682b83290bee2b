/** Whole nodes in this process, connected over loopback. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ChainSpec } from '../../node/chain-spec/chain-spec.ts';
import { type Node, startNode } from '../../node/service.ts';
import type { NetworkSettings } from '../../p2p/network.ts';

export interface Member {
  readonly node: Node;
  readonly address: string;
  /** What was logged as a warning or error, with its fields. */
  readonly warnings: readonly string[];
  stop(): Promise<void>;
}

export interface MemberOptions {
  readonly name: string;
  readonly spec: ChainSpec;
  readonly directory: string;
  readonly authority: string | undefined;
  /** Authors and votes with what keys it has (default: when there is an `authority`). */
  readonly validator?: boolean;
  readonly bootNodes: readonly string[];
  readonly sync?: 'full' | 'warp';
  readonly blobBytes?: number;
}

const verbose = process.env.VERBOSE !== undefined;

/** Loopback, any port. */
export const loopback = (bootNodes: readonly string[], sync: 'full' | 'warp' = 'full'): NetworkSettings => ({
  listen: ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/tcp/0/ws'],
  publicAddresses: [],
  bootNodes,
  reserved: [],
  keyFile: undefined,
  maxPeers: 25,
  mdns: false,
  kad: true,
  sync,
});

export const addressOf = (node: Node): string => {
  const address = node.network.listenAddresses().find((each) => !each.includes('/ws'));
  if (address === undefined) throw new Error('the node does not listen');
  return address;
};

export async function startMember(options: MemberOptions): Promise<Member> {
  const { name, spec, directory, authority, validator, bootNodes, blobBytes, sync = 'full' } = options;
  const stop = new AbortController();
  const warnings: string[] = [];
  const node = await startNode(
    {
      name,
      version: '0',
      spec,
      basePath: directory,
      statePruning: 256,
      authority,
      ...(validator !== undefined && { validator }),
      ...(blobBytes !== undefined && { blobBytes }),
      rpc: { host: '127.0.0.1', port: 0, methods: 'auto' },
      network: loopback(bootNodes, sync),
      log: (level, message, fields) => {
        if (level === 'warn' || level === 'error') warnings.push(`${message} ${JSON.stringify(fields ?? {})}`);
        if (verbose) process.stderr.write(`${name} ${level} ${message} ${JSON.stringify(fields ?? {})}\n`);
      },
    },
    stop.signal,
  );
  return {
    node,
    address: addressOf(node),
    warnings,
    stop: async () => {
      stop.abort();
      await node.stopped;
    },
  };
}

export async function directories(
  count: number,
): Promise<{ readonly paths: readonly string[]; remove(): Promise<void> }> {
  const root = await mkdtemp(join(tmpdir(), 'network-'));
  return {
    paths: Array.from({ length: count }, (_, i) => join(root, String(i))),
    remove: () => rm(root, { recursive: true, force: true }),
  };
}
