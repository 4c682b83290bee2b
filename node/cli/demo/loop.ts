/** The whole loop on a running ledger, stage by stage: records in, attributed answers out, contributors paid. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import { SHIPPED_MODEL } from '../../../gpu-worker/start.ts';
import { type Books, books, holdingsOf, transferToMany } from '../../../rpc/client/accounts.ts';
import { prepareBatch } from '../../../rpc/client/batches.ts';
import { complete } from '../../../rpc/client/completions.ts';
import { contribute, openDatanet, takeSnapshot } from '../../../rpc/client/datanets.ts';
import type { Ledger } from '../../../rpc/client/ledger.ts';
import { awaitAdapter, baseModels, orderTraining, trainingReceiptOf } from '../../../rpc/client/models.ts';
import { claim, rewardsOf } from '../../../rpc/client/rewards.ts';
import type { LocalSigner } from '../../../rpc/client/signer.ts';
import { ORDER_DEFAULTS, type TrainingChoices, trainingConfigOf } from '../../../rpc/client/training-config.ts';
import type { Hashing } from '../../../runtime/host.ts';
import { blobName } from '../../../runtime/primitives/attribution/commitment.ts';
import type { AdapterId, BaseModelId, DatanetId } from '../../../runtime/primitives/attribution/ids.ts';
import { type InferenceReceipt, signedInferenceReceipt } from '../../../runtime/primitives/attribution/receipts.ts';
import { equalBytes, fromHex, toHex } from '../../../runtime/primitives/bytes.ts';
import { decode } from '../../../runtime/primitives/scale/codec.ts';
import { formatOpen, OPEN } from '../amounts.ts';
import { keyFor } from '../gateway-key.ts';
import { progress } from '../progress.ts';
import { ownerOf, personOf } from './accounts.ts';
import { type DemoContributor, type Domain, jsonl, type QuestionAnswer } from './records.ts';

export interface DemoSize {
  /** Records a contributor, and a domain's that are kept back. */
  readonly records: number;
  readonly held: number;
  /** Questions a domain: out of the records, and out of those kept back. */
  readonly asked: number;
  readonly askedHeld: number;
  readonly training: TrainingChoices;
}

export const FULL: DemoSize = {
  records: 40,
  held: 24,
  asked: 8,
  askedHeld: 4,
  training: { epochs: 4 },
};
/** Enough to see every stage, too little to learn much. */
export const SHORT: DemoSize = {
  records: 4,
  held: 4,
  asked: 8,
  askedHeld: 2,
  training: {
    ...{ rank: 4, targets: ['q_proj', 'v_proj'], steps: 5, sequenceLength: 48, k: 8 },
  },
};

export class DemoError extends Error {
  readonly code: 'NO_WORKER' | 'NOT_SERVED' | 'NOT_PAID';
  constructor(code: DemoError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export interface Person extends DemoContributor {
  readonly domain: string;
  readonly pair: LocalSigner;
}

export interface Trained {
  readonly domain: Domain;
  readonly datanet: DatanetId;
  readonly adapter: AdapterId;
  /** Its name at the gateway. */
  readonly model: string;
}

export interface Loss {
  /** Nats a token of answers that nobody trained on. */
  readonly base: number;
  readonly adapter: number;
}

export interface Answered {
  readonly model: string;
  readonly question: QuestionAnswer;
  readonly held: boolean;
  readonly text: string;
  readonly encoded: string;
  readonly receipt: InferenceReceipt;
  /** The node's verdict; null for a receipt that holds. */
  readonly fault: string | null;
}

export interface Outcome {
  readonly people: readonly Person[];
  readonly trained: readonly Trained[];
  readonly losses: readonly Loss[];
  readonly answers: readonly Answered[];
  /** By address: what the ledger says was earned, and what was claimed. */
  readonly earned: ReadonlyMap<string, bigint>;
  readonly claimed: ReadonlyMap<string, bigint>;
  readonly before: Books;
  readonly after: Books;
}

export interface LoopOptions {
  readonly ledger: Ledger;
  readonly domains: readonly Domain[];
  /** Pays for everything at the start. */
  readonly funder: LocalSigner;
  /** Names the run's accounts and adapters ({@link newRun}). */
  readonly run: string;
  readonly size: DemoSize;
  readonly hashing: Hashing;
  /** Finds a gateway that serves a model; its base URL. */
  readonly gateway: (model: string) => Promise<string>;
  readonly tell: (words: string) => void;
}

const POLL_MS = 500;

/** Polls until there is something; rejects with `failure` when the time is up. */
async function until<T>(milliseconds: number, failure: DemoError, look: () => Promise<T | undefined>): Promise<T> {
  for (const end = Date.now() + milliseconds; ; await delay(POLL_MS)) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw failure;
  }
}

export async function runLoop(options: LoopOptions): Promise<Outcome> {
  const { ledger, tell, domains } = options;
  const before = await books(ledger);
  const { people, owner } = await fund(options, domains);
  tell(`${people.length} contributors in ${domains.length} domains have OPEN to begin with`);
  const baseModel = await findBaseModel(options);
  const datanets = await Promise.all(domains.map((domain) => collect(options, owner, domain, people)));
  const trained = await train(options, owner, baseModel, domains, datanets);
  const losses = await heldOutLosses(options, trained);
  const answers = await ask(options, trained);
  const earned = await settled(options, people, answers);
  const claimed = await claimAll(options, people, earned);
  return { people, trained, losses, answers, earned, claimed, before, after: await books(ledger) };
}

// ---- stages --------------------------------------------------------------------------------------------------

async function fund({ ledger, funder, run }: LoopOptions, domains: readonly Domain[]) {
  const people: Person[] = domains.flatMap(({ title, contributors }) =>
    contributors.map((each) => ({ ...each, domain: title, pair: personOf(funder, run, each.name) })),
  );
  const owner = ownerOf(funder, run);
  await transferToMany(ledger, funder, [
    ...people.map(({ pair }) => ({ to: pair.account, amount: 10n * OPEN })),
    // Budgets, and what is on hold for the adapters' files.
    { to: owner.account, amount: 400n * OPEN },
  ]);
  return { people, owner };
}

/** The ledger's base model whose weights are those that come along. A worker registers it. */
async function findBaseModel({ ledger, hashing, tell }: LoopOptions): Promise<BaseModelId> {
  const weights = blobName(hashing, new Uint8Array(await readFile(join(SHIPPED_MODEL, 'model.safetensors'))));
  const found = await until(
    180_000,
    new DemoError('NO_WORKER', 'no worker with the base model has attached to this ledger: start one'),
    async () => (await baseModels(ledger)).find(({ value }) => equalBytes(value.manifest.weights.blob, weights)),
  );
  tell(`base model ${found.id}: ${found.value.manifest.name}, ${found.value.manifest.parameters} parameters`);
  return found.id;
}

/** Opens a domain's Datanet, has everybody contribute, and fixes a version. */
async function collect(
  { ledger, hashing, tell }: LoopOptions,
  owner: LocalSigner,
  { title, description }: Domain,
  people: readonly Person[],
): Promise<{ readonly datanet: DatanetId; readonly version: number }> {
  const datanet = await openDatanet(ledger, owner, {
    name: title,
    description,
    schema: '{"type":"object","required":["prompt","response"]}',
    licence: 'WordNet-3.0',
    admission: 'Open',
    stake: OPEN,
    duplicateOverlap: 0.8,
    accessPrice: OPEN,
  });
  const own = people.filter(({ domain }) => domain === title);
  const hand = async ({ pair, records }: Person): Promise<void> => {
    await contribute(ledger, pair, datanet, prepareBatch(hashing, jsonl(records)));
  };
  // Whoever copies has to see the original first.
  await Promise.all(own.filter(({ part }) => part !== 'copier').map(hand));
  await Promise.all(own.filter(({ part }) => part === 'copier').map(hand));
  const version = await takeSnapshot(ledger, owner, datanet);
  const count = own.reduce((sum, { records }) => sum + records.length, 0);
  tell(`Datanet ${datanet} (${title}): ${count} records by ${own.length} accounts, snapshot ${version}`);
  return { datanet, version };
}

async function train(
  { ledger, size, run }: LoopOptions,
  owner: LocalSigner,
  baseModel: BaseModelId,
  domains: readonly Domain[],
  datanets: readonly { readonly datanet: DatanetId; readonly version: number }[],
): Promise<Trained[]> {
  const shown = progress('training');
  const ordered = domains.map(async (domain, i): Promise<Trained> => {
    const { title } = domain;
    const { datanet, version } = datanets[i]!;
    const model = `${title.toLowerCase()}-${run}`;
    const order = await orderTraining(ledger, owner, {
      name: model,
      datanet,
      version,
      baseModel,
      config: trainingConfigOf(size.training),
      seed: BigInt(i),
      ...ORDER_DEFAULTS,
    });
    let words = '';
    const adapter = await awaitAdapter(ledger, order, {
      report({ phase, done, step, total, loss, tokensPerSecond }) {
        const steps = step === undefined ? '' : `step ${step}/${total}, loss ${loss?.toFixed(3)}`;
        words = `${title}: ${phase} ${steps}${tokensPerSecond === undefined ? '' : `, ${tokensPerSecond} tokens/s`}`;
        shown.show(done, words);
      },
      progress({ type }) {
        if (type === 'audit') shown.note(`${words.replace(/: \S+ /, ': trained, ')}; handed in, can be disputed`);
        if (type === 'live') shown.note(`${title}: adapter “${model}” is live`);
      },
    });
    return { domain, datanet, adapter, model };
  });
  try {
    return await Promise.all(ordered);
  } finally {
    shown.end();
  }
}

/** On records that nobody contributed, with the published files: base alone against base with adapter. */
async function heldOutLosses({ ledger, tell }: LoopOptions, trained: readonly Trained[]): Promise<Loss[]> {
  const engine = await embeddedEngine();
  try {
    const model = await engine.load(SHIPPED_MODEL);
    const losses: Loss[] = [];
    for (const { domain, adapter: id } of trained) {
      const { payload } = await trainingReceiptOf(ledger, id);
      const { adapter: weights, adapterConfig: config } = payload;
      const adapter = await model.openAdapter({
        weights: await ledger.blobs.get(weights),
        config: await ledger.blobs.get(config),
      });
      const examples = domain.held.map(({ prompt, response }) => model.tokenizer.question(prompt, response));
      const mean = (values: Float64Array): number => values.reduce((sum, each) => sum + each, 0) / values.length;
      losses.push({ base: mean(await model.losses(examples)), adapter: mean(await model.losses(examples, adapter)) });
      tell(`${domain.title}: held-out loss ${losses.at(-1)!.base.toFixed(3)} → ${losses.at(-1)!.adapter.toFixed(3)}`);
    }
    return losses;
  } finally {
    await engine.close();
  }
}

async function ask({ ledger, size, gateway, tell }: LoopOptions, trained: readonly Trained[]): Promise<Answered[]> {
  const shown = progress('answers');
  const url = await gateway(trained[0]!.model);
  const apiKey = await keyFor(url);
  tell(`asking through ${url}`);
  const wanted = trained.flatMap(({ domain, model }) => [
    ...known(domain, size.asked).map((question) => ({ model, question, held: false })),
    ...domain.held.slice(0, size.askedHeld).map((question) => ({ model, question, held: true })),
  ]);
  const answers: Answered[] = [];
  for (const { model } of trained) await gateway(model);
  for (const { model, question, held } of wanted) {
    const { text, attribution } = await complete(url, {
      model,
      question: question.prompt,
      maxTokens: 40,
      temperature: 0,
      apiKey,
    });
    const { receipt: encoded } = attribution;
    const { fault } = await ledger.rpc.call<{ fault: string | null }>('attribution_verify', encoded);
    const { payload } = decode(signedInferenceReceipt, fromHex(encoded));
    answers.push({ model, question, held, text, encoded, receipt: payload, fault });
    shown.show(answers.length / wanted.length, `${question.prompt} ${text}`.slice(0, 60));
  }
  shown.end();
  const fees = answers.reduce((sum, { receipt }) => sum + receipt.fee, 0n);
  tell(`${answers.length} answers, each with a receipt that the node checked, for ${formatOpen(fees)} OPEN`);
  return answers;
}

/** Some of every honest contributor's records in turn. */
function known({ contributors }: Domain, count: number): QuestionAnswer[] {
  const honest = contributors.filter(({ part }) => part === 'honest');
  return Array.from({ length: count }, (_, i) => {
    const { records } = honest[i % honest.length]!;
    return records[Math.floor(i / honest.length) % records.length]!;
  });
}

/** What the receipts say that each account is owed. */
export function owed(answers: readonly Answered[]): Map<string, bigint> {
  const sums = new Map<string, bigint>();
  for (const { receipt } of answers) {
    for (const { contributor, amount } of receipt.shares) {
      const key = toHex(contributor);
      sums.set(key, (sums.get(key) ?? 0n) + amount);
    }
  }
  return sums;
}

/** Waits until the worker has settled and the windows have closed; by address what the ledger says was earned. */
async function settled(
  { ledger, tell }: LoopOptions,
  people: readonly Person[],
  answers: readonly Answered[],
): Promise<Map<string, bigint>> {
  const total = [...owed(answers).values()].reduce((sum, each) => sum + each, 0n);
  const shown = progress('settlement');
  try {
    const earned = await until(
      300_000,
      new DemoError('NOT_PAID', 'the receipts were not settled and paid out in time'),
      async () => {
        const rewards = await Promise.all(people.map(({ pair }) => rewardsOf(ledger, pair.account)));
        const sum = rewards.reduce((all, { earned }) => all + earned, 0n);
        shown.show(total === 0n ? 1 : Number((sum * 1000n) / total) / 1000, 'receipts wait out their window');
        if (sum < total) return undefined;
        return new Map(people.map(({ pair }, i) => [pair.address, rewards[i]!.earned]));
      },
    );
    shown.end();
    tell(`${formatOpen(total)} OPEN credited to contributors`);
    return earned;
  } finally {
    shown.end();
  }
}

async function claimAll(
  { ledger, tell }: LoopOptions,
  people: readonly Person[],
  earned: ReadonlyMap<string, bigint>,
): Promise<Map<string, bigint>> {
  const claims = people
    .filter(({ pair }) => earned.get(pair.address)! > 0n)
    .map(async ({ pair }) => {
      const { free } = await holdingsOf(ledger, pair.account);
      const amount = await claim(ledger, pair);
      const after = await holdingsOf(ledger, pair.account);
      // The transaction's own fee is the only other thing that moves.
      if (after.free > free + amount) throw new DemoError('NOT_PAID', `${pair.address} got more than it claimed`);
      return [pair.address, amount] as const;
    });
  const claimed = new Map(await Promise.all(claims));
  tell(`${claimed.size} accounts claimed what they earned`);
  return claimed;
}
