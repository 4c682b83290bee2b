/** `openledger model …`: order adapters, follow their training, list them. */
import { randomBytes } from 'node:crypto';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { ORDER_DEFAULTS, TRAINING_DEFAULTS, trainingConfigOf } from '../../../rpc/client/training-config.ts';
import type { AdapterId, BaseModelId, DatanetId } from '../../../runtime/primitives/attribution/ids.ts';
import type { TrainingConfig } from '../../../runtime/primitives/attribution/training.ts';
import { formatOpen, parseOpen } from '../amounts.ts';
import {
  addressOf,
  type ClientFlags,
  id,
  part,
  print,
  type SignerFlags,
  withClientFlags,
  withLedger,
  withSignerFlags,
} from '../client.ts';
import { count } from '../options.ts';

const clients = () => import('../../../rpc/client/models.ts');

interface OrderFlags extends SignerFlags {
  readonly name: string;
  readonly snapshot?: number;
  readonly base?: number;
  readonly budget: bigint;
  readonly markup: number;
  readonly priceIn: bigint;
  readonly priceOut: bigint;
  readonly rank: number;
  readonly epochs: number;
  readonly steps?: number;
  readonly learningRate: number;
  readonly batch: number;
  readonly length: number;
  readonly k: number;
  readonly buckets: number;
  readonly attributionLayers: number | 'last-quarter';
  readonly attributionStride: number;
  readonly seed?: number;
  readonly storage?: bigint;
  readonly wait: boolean;
}

async function order(datanet: number, flags: OrderFlags): Promise<void> {
  const models = await clients();
  const { datanetOf } = await import('../../../rpc/client/datanets.ts');
  const { palletError } = await import('../../../rpc/client/errors.ts');
  const { errors } = await import('../../../runtime/pallets/ledger/models.ts');
  const { openKey } = await import('../account-key.ts');
  const { rank, epochs, steps, learningRate, batch, length, k, buckets, attributionLayers, attributionStride } = flags;
  const pair = await openKey(flags.key, flags.passwordFile);
  await withLedger(flags.node, async (ledger) => {
    const { snapshots } = await datanetOf(ledger, datanet as DatanetId);
    if (snapshots === 0) throw palletError(errors.UnknownSnapshot, `Datanet ${datanet} has no snapshot yet`);
    const base = flags.base ?? (await models.baseModels(ledger))[0]?.id;
    if (base === undefined) {
      throw palletError(errors.UnknownBaseModel, 'there is no base model: the first worker registers its own');
    }
    const config = trainingConfigOf({
      ...{ rank, epochs, learningRate, batch, k, sequenceLength: length, sketchWidth: buckets, attributionStride },
      ...(steps !== undefined && { steps }),
      attributionLayers:
        attributionLayers === 'last-quarter'
          ? Math.ceil((await models.layersOf(ledger, base as BaseModelId)) / 4)
          : attributionLayers,
    });
    const made = await models.orderTraining(ledger, pair, {
      name: flags.name,
      datanet: datanet as DatanetId,
      version: flags.snapshot ?? snapshots - 1,
      baseModel: base as BaseModelId,
      config,
      seed: BigInt(flags.seed ?? randomBytes(4).readUInt32LE()),
      budget: flags.budget,
      storage: flags.storage,
      markup: flags.markup,
      price: { input: flags.priceIn, output: flags.priceOut },
    });
    if (!flags.wait) {
      print(flags, { order: made }, () => `Order ${made} waits for a worker.`);
      return;
    }
    const { progress } = await import('../progress.ts');
    const shown = progress(flags.name);
    try {
      const adapter = await models.awaitAdapter(ledger, made, {
        report: ({ phase, done, step, total, loss, tokensPerSecond }) =>
          shown.show(
            done,
            step === undefined ? phase : `${phase}, step ${step}/${total}, loss ${loss}, ${tokensPerSecond} tokens/s`,
          ),
        progress: ({ type }) => shown.note(STANDINGS[type]),
      });
      print(flags, { order: made, adapter }, () => `Adapter ${adapter} “${flags.name}” is live.`);
    } finally {
      shown.end();
    }
  });
}

const STANDINGS = {
  waiting: 'waits for a worker',
  training: 'a worker has taken it',
  audit: 'trained; it can be disputed for a while',
  live: 'accepted, the worker is paid',
  cancelled: 'cancelled',
} as const;

const perToken = ({ input, output }: { readonly input: bigint; readonly output: bigint }): string =>
  `${formatOpen(input * 1000n)} / ${formatOpen(output * 1000n)}`;

async function list(flags: ClientFlags): Promise<void> {
  const models = await clients();
  const { table } = await import('../table.ts');
  await withLedger(flags.node, async (ledger) => {
    const [bases, orders, adapters] = await Promise.all([
      models.baseModels(ledger),
      models.orders(ledger),
      models.adapters(ledger),
    ]);
    const standings = await Promise.all(orders.map(({ id: each }) => models.orderProgress(ledger, each)));
    const served = await ledger.rpc.call<{ adapter: number; worker: string }[]>('inference_models');
    const workers = (adapter: number): number => served.filter((each) => each.adapter === adapter).length;
    const value = {
      baseModels: bases.map(({ id: base, value: { manifest } }) => ({
        id: base,
        name: manifest.name,
        parameters: manifest.parameters,
        licence: manifest.licence,
      })),
      orders: orders.map(({ id: each, value: { name, snapshot, budget } }, i) => ({
        id: each,
        name,
        datanet: snapshot.datanet,
        snapshot: snapshot.version,
        budget,
        standing: standings[i]!.type,
      })),
      adapters: adapters.map(({ id: adapter, value: { name, owner, status, price, markup, order: of } }) => ({
        id: adapter,
        name,
        owner: addressOf(owner),
        order: of,
        status: status.type.toLowerCase(),
        price,
        markup: markup / 1e9,
        workers: workers(adapter),
      })),
    };
    print(flags, value, () =>
      [
        table(
          ['>Base', 'Name', '>Parameters', 'Licence'],
          value.baseModels.map((each) => [String(each.id), each.name, String(each.parameters), each.licence]),
        ),
        table(
          ['>Order', 'Name', '>Datanet', '>Snapshot', '>Budget, OPEN', 'Standing'],
          value.orders.map((each) => [
            String(each.id),
            each.name,
            String(each.datanet),
            String(each.snapshot),
            formatOpen(each.budget),
            each.standing,
          ]),
        ),
        table(
          ['>Adapter', 'Name', 'Owner', 'Status', '>OPEN per 1000 tokens in / out', '>Served by'],
          value.adapters.map((each) => [
            String(each.id),
            each.name,
            each.owner,
            each.status,
            perToken(each.price),
            String(each.workers),
          ]),
        ),
      ].join('\n'),
    );
  });
}

async function show(wanted: string, flags: ClientFlags): Promise<void> {
  const models = await clients();
  const { palletError } = await import('../../../rpc/client/errors.ts');
  const { errors } = await import('../../../runtime/pallets/ledger/models.ts');
  await withLedger(flags.node, async (ledger) => {
    const found = (await models.adapters(ledger)).find(
      ({ id: adapter, value: { name } }) => name === wanted || String(adapter) === wanted,
    );
    if (found === undefined) throw palletError(errors.UnknownAdapter, `there is no adapter ${wanted}`);
    const { id: adapter, value } = found;
    const [{ payload: receipt }, ordered] = await Promise.all([
      models.trainingReceiptOf(ledger, adapter as AdapterId),
      models.orderOf(ledger, value.order),
    ]);
    const { loss } = receipt;
    const nats = (fixed: number): string => (fixed / 65_536).toFixed(3);
    print(
      flags,
      {
        adapter,
        name: value.name,
        owner: addressOf(value.owner),
        worker: addressOf(value.worker),
        status: value.status.type.toLowerCase(),
        price: value.price,
        markup: value.markup / 1e9,
        order: value.order,
        snapshot: ordered.snapshot,
        config: ordered.config,
        files: { adapter: receipt.adapter, config: receipt.adapterConfig },
        features: receipt.features,
        loss,
      },
      () =>
        [
          `Adapter ${adapter} “${value.name}”, ${value.status.type.toLowerCase()}`,
          `Owner    ${addressOf(value.owner)}, markup ${value.markup / 1e7} %`,
          `Worker   ${addressOf(value.worker)}, order ${value.order}, budget ${formatOpen(ordered.budget)} OPEN`,
          `Records  ${ordered.snapshot.count} of Datanet ${ordered.snapshot.datanet}, snapshot ${ordered.snapshot.version}`,
          `Training ${loss.steps} steps, ${loss.tokens} tokens, loss ${nats(loss.first)} → ${nats(loss.last)}`,
          `Features ${features(ordered.config)}`,
          `Price    ${perToken(value.price)} OPEN per 1000 tokens in / out`,
          `Files    ${ledger.url.replace(/^ws/, 'http')}/blobs/${Buffer.from(receipt.adapter).toString('hex')} (safetensors)`,
        ].join('\n'),
    );
  });
}

function features({ k, sketchWidth, attributionLayers, attributionStride }: TrainingConfig): string {
  const layers = attributionLayers === 0 ? 'all layers' : `the last ${attributionLayers} layers`;
  const tokens = attributionStride === 1 ? 'every token' : `one in ${attributionStride} tokens`;
  return `${k} entries out of ${sketchWidth} buckets, by ${layers} and ${tokens} of an answer`;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value < 1)) throw new InvalidArgumentError('between 0 and 1');
  return value;
}

function layers(text: string): number | 'last-quarter' {
  if (text === 'all') return 0;
  return text === 'last-quarter' ? text : count(text);
}

const openOption = (flags: string, description: string, amount: bigint): Option =>
  new Option(flags, description).argParser(parseOpen).default(amount, formatOpen(amount));
const countOption = (flags: string, description: string, value: number): Option =>
  new Option(flags, description).argParser(count).default(value);

export function modelCommands(program: Command): void {
  const group = program.command('model').description('adapters: order one, follow its training, see what there is');
  withSignerFlags(group.command('order'))
    .description('order an adapter trained on a Datanet’s snapshot, and follow it until it is live')
    .argument('<datanet>', 'its number', id)
    .requiredOption('--name <name>', 'what the adapter is called, also at the gateway')
    .addOption(new Option('--snapshot <version>', 'which version (default: the newest)').argParser(id))
    .addOption(new Option('--base <id>', 'which base model (default: the first)').argParser(id))
    .addOption(openOption('--budget <open>', 'OPEN that the worker gets for the training', ORDER_DEFAULTS.budget))
    .addOption(
      new Option(
        '--storage <open>',
        'most OPEN on hold for the adapter’s files, 0.1 a megabyte; the rest comes back (default: enough for 512 MiB)',
      ).argParser(parseOpen),
    )
    .addOption(
      new Option('--markup <part>', 'your part on top of every fee, such as 10%')
        .argParser(part)
        .default(ORDER_DEFAULTS.markup),
    )
    .addOption(openOption('--price-in <open>', 'OPEN per prompt token', ORDER_DEFAULTS.price.input))
    .addOption(openOption('--price-out <open>', 'OPEN per answer token', ORDER_DEFAULTS.price.output))
    .addOption(countOption('--rank <r>', 'rank of the LoRA factors', TRAINING_DEFAULTS.rank))
    .addOption(countOption('--epochs <n>', 'passes over the records', TRAINING_DEFAULTS.epochs))
    .addOption(new Option('--steps <n>', 'training steps, in place of epochs').argParser(count))
    .addOption(
      new Option('--learning-rate <rate>', 'learning rate at its peak')
        .argParser(positive)
        .default(TRAINING_DEFAULTS.learningRate),
    )
    .addOption(countOption('--batch <n>', 'records per training step', TRAINING_DEFAULTS.batch))
    .addOption(countOption('--length <tokens>', 'tokens per record, at most', TRAINING_DEFAULTS.sequenceLength))
    .addOption(countOption('--k <n>', 'entries of a feature row', TRAINING_DEFAULTS.k))
    .addOption(
      countOption('--buckets <n>', 'buckets of the feature sketch, a power of two', TRAINING_DEFAULTS.sketchWidth),
    )
    .addOption(
      new Option(
        '--attribution-layers <n>',
        'how many of the last layers carry attribution: a number, last-quarter, all',
      )
        .argParser(layers)
        .default(TRAINING_DEFAULTS.attributionLayers, 'all'),
    )
    .addOption(
      new Option('--attribution-stride <m>', 'attribute one in m tokens of an answer (1: every token)')
        .argParser(count)
        .default(TRAINING_DEFAULTS.attributionStride),
    )
    .addOption(new Option('--seed <n>', 'seed of the training (default: random)').argParser(id))
    .option('--no-wait', 'order and return')
    .action(order);
  withClientFlags(group.command('list')).description('list base models, orders and adapters').action(list);
  withClientFlags(group.command('show'))
    .description('show an adapter: its lineage, its training, its price')
    .argument('<adapter>', 'its name or number')
    .action(show);
}
