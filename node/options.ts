/** What a node is told when it starts. */

import type { NetworkSettings } from '../p2p/network.ts';
import type { Cors, MethodPolicy } from '../rpc/server/access.ts';
import type { ChainSpec } from './chain-spec/chain-spec.ts';
import type { MetricsAddress } from './metrics/server.ts';
import type { Clock, Log } from './ports/machine.ts';

export interface NodeOptions {
  readonly name: string;
  readonly version: string;
  readonly spec: ChainSpec;
  /** Undefined: a temporary directory, removed when the node stops. */
  readonly basePath: string | undefined;
  readonly statePruning: number | 'archive';
  /** Final blocks whose bodies are kept (default: all). */
  readonly blocksPruning?: number | 'archive';
  /** Authors and votes with the keys of its keystore (default: when there is an `authority`). */
  readonly validator?: boolean;
  /** A secret URI whose keys are held for this run, beside those of the keystore. */
  readonly authority: string | undefined;
  /** Keys are kept on disk under this password, with the chain's data. Undefined, or without a base path: in memory. */
  readonly keystorePassword?: string;
  readonly rpc: {
    readonly host: string;
    readonly port: number;
    readonly methods: MethodPolicy;
    readonly cors?: Cors;
    /** Names that the node's JSON-RPC may be called by, besides addresses and `localhost`. */
    readonly hosts?: readonly string[];
    readonly maxConnections?: number;
  };
  /** Looks at what is to be paid and shows what is wrong with it (default: if it is a validator). */
  readonly watcher?: boolean;
  /** Bytes of blobs that are kept, at most (default 8 GiB). */
  readonly blobBytes?: number;
  /** Stops the node at a block in which OPEN was made or lost; slow (default: if OPENLEDGER_AUDIT_BOOKS is 1, as in tests). */
  readonly auditBooks?: boolean;
  /** Undefined: the node runs alone. */
  readonly network?: NetworkSettings | undefined;
  /** Where Prometheus finds the metrics; undefined: nowhere. */
  readonly metrics?: MetricsAddress | undefined;
  /** Default: the machine's. */
  readonly clock?: Clock;
  readonly log: Log;
}
