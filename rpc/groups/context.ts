/** What the methods of this folder work with. */

import type { Client, Keystore, NetworkStatus } from '../../node/ports/chain.ts';
import type { Log } from '../../node/ports/machine.ts';
import type { Hashing } from '../../runtime/host.ts';

/** The chain as its specification describes it. */
export interface ChainDescription {
  readonly name: string;
  readonly type: 'Development' | 'Local' | 'Live' | { readonly Custom: string };
  readonly properties: Readonly<Record<string, string | number | boolean | null>>;
}

export interface NodeDescription {
  readonly name: string;
  readonly version: string;
  readonly roles: readonly ('Full' | 'Authority' | 'LightClient')[];
}

/** GRANDPA's rounds under way, in the JSON of `grandpa_roundState`. */
export interface RoundStates {
  readonly setId: number;
  readonly best: RoundState;
  readonly background: readonly RoundState[];
}
interface RoundState {
  readonly round: number;
  readonly totalWeight: number;
  readonly thresholdWeight: number;
  readonly prevotes: { readonly currentWeight: number; readonly missing: readonly string[] };
  readonly precommits: { readonly currentWeight: number; readonly missing: readonly string[] };
}

export interface RpcContext {
  readonly client: Client;
  readonly network: NetworkStatus;
  readonly keystore: Keystore;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly chain: ChainDescription;
  readonly node: NodeDescription;
  /** Key types of a validator's session keys, in the order of the runtime's `SessionKeys`. */
  readonly sessionKeyTypes: readonly string[];
  /** Undefined while no voter runs. */
  readonly roundStates?: () => RoundStates | undefined;
  /** Whether a node without peers is cut off (default: it is not). */
  readonly shouldHavePeers?: boolean;
  /** Number of the first block of the run, for `system_syncState`. */
  readonly startingBlock?: number;
  readonly log: Log;
}
