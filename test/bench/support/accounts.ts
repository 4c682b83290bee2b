/** Accounts with keys and signed transfers between them, made on threads of their own, without a client library. */
import { Worker } from 'node:worker_threads';
import { presetSpec } from '../../../node/chain-spec/built-in.ts';
import type { ChainSpec } from '../../../node/chain-spec/chain-spec.ts';
import type { GenesisConfig } from '../../../node/chain-spec/genesis-config.ts';

export interface TransferJob {
  /** Accounts by number; each sends to the next one. */
  readonly from: number;
  readonly to: number;
  readonly accounts: number;
  readonly firstNonce: number;
  readonly perAccount: number;
  readonly genesisHash: Uint8Array;
  readonly specVersion: number;
  readonly transactionVersion: number;
  readonly amount: bigint;
}

/** What every account of {@link chainWith} has at the start. */
export const ENDOWMENT = 1_000n * 10n ** 18n;

async function inThread<T>(message: object): Promise<T> {
  const worker = new Worker(new URL('./signing-thread.ts', import.meta.url), { workerData: message });
  try {
    return await new Promise<T>((resolve, reject) => worker.once('message', resolve).once('error', reject));
  } finally {
    await worker.terminate();
  }
}

export const publicKeys = (count: number): Promise<Uint8Array[]> => inThread({ type: 'keys', count });

/** Extrinsics by round of nonces, then by account, so that all accounts advance together. */
export async function signedTransfers(job: Omit<TransferJob, 'from' | 'to'>, threads = 2): Promise<string[]> {
  const share = Math.ceil(job.accounts / threads);
  const parts = await Promise.all(
    Array.from({ length: threads }, (_, i) =>
      inThread<string[][]>({
        type: 'transfers',
        job: { ...job, from: i * share, to: Math.min(job.accounts, (i + 1) * share) },
      }),
    ),
  );
  return Array.from({ length: job.perAccount }, (_, round) => parts.flatMap((part) => part[round] ?? [])).flat();
}

/** The development chain with more accounts. */
export function chainWith(keys: readonly Uint8Array[], slotDurationMs?: number): ChainSpec {
  const spec = presetSpec('dev', slotDurationMs === undefined ? {} : { slotDurationMs });
  if (spec.genesis.type !== 'config') throw new Error('the development chain is described by a configuration');
  const { config } = spec.genesis;
  const balances = keys.map((key) => ({
    account: key as GenesisConfig['balances'][number]['account'],
    amount: ENDOWMENT,
  }));
  return { ...spec, genesis: { type: 'config', config: { ...config, balances: [...config.balances, ...balances] } } };
}
