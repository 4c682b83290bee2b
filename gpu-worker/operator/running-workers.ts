/** Workers that run on this machine, as they tell of themselves, and what their accounts earned. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { accountOfAddress } from '../../rpc/client/address.ts';
import { Ledger } from '../../rpc/client/ledger.ts';
import { store as attribution } from '../../runtime/pallets/ledger/attribution.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import { store as system } from '../../runtime/pallets/standard/system.ts';
import { TELEMETRY_FILE, type TelemetryPlace, type WorkerStatus } from './telemetry.ts';

const PATIENCE_MS = 5_000;

/** The worker of `directory`, or those of the directories in it. One that does not answer is not told of. */
export async function runningWorkers(directory: string): Promise<WorkerStatus[]> {
  const inside = await readdir(directory, { withFileTypes: true }).catch(() => []);
  const places = [directory, ...inside.filter((entry) => entry.isDirectory()).map(({ name }) => join(directory, name))];
  const all = await Promise.all(places.map((place) => statusOf(place).catch(() => undefined)));
  return all.filter((status) => status !== undefined);
}

async function statusOf(directory: string): Promise<WorkerStatus> {
  const { url } = JSON.parse(await readFile(join(directory, TELEMETRY_FILE), 'utf8')) as TelemetryPlace;
  const response = await fetch(`${url}/status`, { signal: AbortSignal.timeout(PATIENCE_MS) });
  return (await response.json()) as WorkerStatus;
}

export interface Earnings {
  readonly free: bigint;
  readonly bond: bigint;
  readonly earned: bigint;
  readonly claimable: bigint;
}

/** From the chain, by the worker's node. */
export async function earnings({ node, address }: Pick<WorkerStatus, 'node' | 'address'>): Promise<Earnings> {
  const ledger = await Ledger.connect(node);
  try {
    const who = accountOfAddress(address);
    const [account, worker, rewards] = await ledger.readTogether([
      ledger.query(system.Account, who),
      ledger.query(compute.store.Workers, who),
      ledger.query(attribution.Rewards, who),
    ]);
    return { free: account.data.free, bond: worker?.bond ?? 0n, ...rewards };
  } finally {
    ledger.close();
  }
}
