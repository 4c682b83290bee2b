/** What a worker is started with, and what the ledger then knows it as. */
import type { Log } from '../node/ports/machine.ts';
import type { LocalSigner } from '../rpc/client/signer.ts';
import type { Hashing, Signatures } from '../runtime/host.ts';
import type { BaseModelId } from '../runtime/primitives/attribution/ids.ts';
import type { LoadedModel } from './engines/engine.ts';
import type { Telemetry } from './operator/telemetry.ts';

/** The account that asks and pays for answers with planted faults. Nobody should know that it is the worker's. */
export interface Planting {
  readonly payer: LocalSigner;
  /** Milliseconds between two planted faults. */
  readonly everyMs: number;
}

export interface WorkerOptions {
  /** `ws://…` of the node. */
  readonly node: string;
  /** Of the worker's account. */
  readonly key: LocalSigner;
  /** For the journal. */
  readonly directory: string;
  readonly model: LoadedModel;
  /** Where the model was loaded from: its files say which base model of the ledger it is. */
  readonly modelDirectory: string;
  /** SPDX identifier or URL, if this worker is the one that registers the base model. */
  readonly licence: string;
  /** For people: `embedded`, `torch cuda`, … */
  readonly engine: string;
  /** Whether every machine with this engine gets the same bits: audits then go by them, else by tolerance. */
  readonly exact: boolean;
  /** Bond to register with, if the account is no worker yet. */
  readonly bond: bigint;
  readonly training: boolean;
  readonly serving: boolean;
  readonly auditing: boolean;
  /** Plants faults against auditors that do not look; undefined: none. */
  readonly planting?: Planting;
  /** Adapters served at most. */
  readonly maxAdapters: number;
  /** Receipts wait so long at most before they are settled. */
  readonly settleMs: number;
  /** Steps between two checkpoints of a training, at most: one falls on the end of every segment that auditors make again. */
  readonly checkpointSteps: number;
  readonly hashing: Hashing;
  readonly signatures: Signatures;
  readonly log: Log;
  /** Told of what happens, for metrics and status. */
  readonly telemetry?: Telemetry;
}

/** Steps between two checkpoints when nobody says otherwise. */
export const CHECKPOINT_STEPS = 50;

/** What the ledger knows this worker as. */
export interface Standing {
  readonly baseModel: BaseModelId;
}
