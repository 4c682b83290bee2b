/** What every part of a node is given, and what it may leave behind for the parts after it. */
import type { Hashing } from '../../runtime/host.ts';
import type { SignatureCache } from '../crypto/signatures.ts';
import type { NodeOptions } from '../options.ts';
import type { Clock } from '../ports/machine.ts';

/** The ground that all parts stand on. */
export interface Ground {
  readonly options: NodeOptions;
  /** Where this node keeps its data. */
  readonly directory: string;
  readonly hashing: Hashing;
  readonly signatures: SignatureCache;
  readonly clock: Clock;
  /** What a part opens goes on top of this stack, which is closed from the top when the node has stopped. */
  readonly open: AsyncDisposableStack;
}
