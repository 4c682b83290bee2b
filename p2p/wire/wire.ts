/** What further protocols need of the network: the host, who is connected, and who pays for what. */
import type { Clock, Log } from '../../node/ports/machine.ts';
import type { Host } from '../host/host.ts';
import type { PeerId } from '../host/peer-scores.ts';
import type { Limits } from '../limits/limits.ts';
import type { Room, RoomOptions } from './gossip.ts';

export interface Wire {
  readonly host: Host;
  /** `/<genesis hash>[/<fork id>]`. */
  readonly prefix: string;
  /** Raw ed25519 key of this node, and signatures by it. */
  readonly publicKey: Uint8Array;
  readonly sign: (message: Uint8Array) => Promise<Uint8Array>;
  /** Full nodes that are connected. */
  readonly peers: () => readonly PeerId[];
  readonly isMajorSyncing: () => boolean;
  readonly join: (options: RoomOptions) => Room;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  readonly limits: Limits;
  readonly clock: Clock;
  readonly log: Log;
}
