/** A ledger with a Datanet of two contributors, for tests of workers against a whole node. */
import { books } from '../../rpc/client/accounts.ts';
import { prepareBatch } from '../../rpc/client/batches.ts';
import { type Call, callOf } from '../../rpc/client/call.ts';
import { contribute, openDatanet, takeSnapshot } from '../../rpc/client/datanets.ts';
import type { Ledger } from '../../rpc/client/ledger.ts';
import { baseModels, orderTraining } from '../../rpc/client/models.ts';
import { sudo } from '../../rpc/client/pallets.ts';
import type { LocalSigner } from '../../rpc/client/signer.ts';
import { type TrainingChoices, trainingConfigOf } from '../../rpc/client/training-config.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import type { BaseModelId, DatanetId, OrderId } from '../../runtime/primitives/attribution/ids.ts';
import { hashing, OPEN, startLedger } from '../main-job/support.ts';
import { until } from '../support/until.ts';

const ANIMALS = ['otter', 'heron', 'newt', 'stoat', 'vole', 'wren', 'mole', 'swan'];
const STONES = ['slate', 'flint', 'basalt', 'chalk', 'gneiss', 'marble', 'granite', 'jasper'];
const records = (words: readonly string[], tail: string): string =>
  words.map((word) => JSON.stringify({ prompt: `What is ${word}?`, response: `The ${word} ${tail}.` })).join('\n');

/** Of an order. */
export const BUDGET = 10n * OPEN;
export const PRICE = { input: OPEN / 100_000n, output: OPEN / 10_000n };

export interface World extends Awaited<ReturnType<typeof startLedger>> {
  readonly datanet: DatanetId;
  readonly version: number;
  readonly contributors: readonly [LocalSigner, LocalSigner];
  readonly owner: LocalSigner;
}

/** Without a worker: it registers the base model that orders name. */
export async function world(...start: Parameters<typeof startLedger>): Promise<World> {
  const started = await startLedger(...start);
  return { ...started, ...(await populate(started)) };
}

/** Opens the Datanet and fills it. */
export async function populate({
  ledger,
  pair,
}: Pick<World, 'ledger' | 'pair'>): Promise<Pick<World, 'datanet' | 'version' | 'contributors' | 'owner'>> {
  const [owner, first, second] = [pair('//Alice//stash'), pair('//Charlie'), pair('//Dave')];
  const datanet = await openDatanet(ledger, owner, {
    name: 'Things',
    description: 'Animals and stones.',
    schema: 'prompt and response',
    licence: 'CC-BY-4.0',
    admission: 'Open',
    stake: OPEN,
    duplicateOverlap: 0.9,
    accessPrice: OPEN,
  });
  await Promise.all([
    contribute(ledger, first, datanet, prepareBatch(hashing, records(ANIMALS, 'lives by the river'))),
    contribute(ledger, second, datanet, prepareBatch(hashing, records(STONES, 'lies under the hill'))),
  ]);
  return { datanet, version: await takeSnapshot(ledger, owner, datanet), contributors: [first, second], owner };
}

/** Orders an adapter on the base model that a worker has registered. */
export async function order(
  { ledger, owner, datanet, version }: Pick<World, 'ledger' | 'owner' | 'datanet' | 'version'>,
  name: string,
  { seed = 1n, ...choices }: TrainingChoices & { readonly seed?: bigint } = {},
): Promise<OrderId> {
  const { id } = await until('a base model', async () => (await baseModels(ledger))[0]);
  return orderTraining(ledger, owner, {
    name,
    datanet,
    version,
    baseModel: id as BaseModelId,
    config: trainingConfigOf({
      ...{ steps: 4, k: 8, sequenceLength: 48, batch: 4, targets: ['q_proj', 'v_proj'] },
      ...choices,
    }),
    seed,
    budget: BUDGET,
    markup: 0.1,
    price: PRICE,
  });
}

/** Whether all balances together are the total issuance, to the last unit. */
export async function balanced(ledger: Ledger): Promise<boolean> {
  const { sum, issuance } = await books(ledger);
  return sum === issuance;
}

/** The call as root. Rejects with what it fails with. */
export async function asRoot({ ledger, pair }: Pick<World, 'ledger' | 'pair'>, call: Call): Promise<void> {
  const made = await ledger.submit(pair('//Alice'), sudo.calls.sudo, { call });
  const { sudoResult } = made.event(sudo.events.Sudid);
  if (!sudoResult.ok) throw await ledger.failureOf(sudoResult.error);
}

/** As root: how many blocks a lease lasts without being renewed. */
export async function setLeases(world: Pick<World, 'ledger' | 'pair'>, leaseBlocks: number): Promise<void> {
  const parameters = { ...compute.DEFAULT_PARAMETERS, leaseBlocks };
  await asRoot(world, callOf(compute.calls.setParameters, { parameters }));
}
