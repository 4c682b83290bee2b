/** `openledger datanet …`: open a network of records, contribute to it, admit, fix versions. */
import { readFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { type Command, Option } from 'commander';
import type { DatanetId } from '../../../runtime/primitives/attribution/ids.ts';
import { formatOpen, OPEN, parseOpen } from '../amounts.ts';
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

const clients = () => import('../../../rpc/client/datanets.ts');
const signer = async ({ key, passwordFile }: SignerFlags) =>
  (await import('../account-key.ts')).openKey(key, passwordFile);

interface CreateFlags extends SignerFlags {
  readonly name: string;
  readonly description: string;
  readonly schema: string;
  readonly licence: string;
  readonly curated?: boolean;
  readonly stake: bigint;
  readonly overlap: number;
  readonly accessPrice: bigint;
}

async function create(flags: CreateFlags): Promise<void> {
  const { openDatanet } = await clients();
  const pair = await signer(flags);
  const { name, description, schema, licence, stake, accessPrice, overlap } = flags;
  const made = await withLedger(flags.node, (ledger) =>
    openDatanet(ledger, pair, {
      ...{ name, description, schema, licence, stake, accessPrice },
      admission: flags.curated ? 'Curated' : 'Open',
      duplicateOverlap: overlap,
    }),
  );
  print(flags, { datanet: made, owner: pair.address }, () => `Datanet ${made} “${name}” is open.`);
}

async function contribute(datanet: number, file: string, flags: SignerFlags): Promise<void> {
  const [{ contribute: hand }, { prepareBatch }] = await Promise.all([
    clients(),
    import('../../../rpc/client/batches.ts'),
  ]);
  const { createHashing } = await import('../../crypto/hashing.ts');
  const source = file === '-' ? await buffer(process.stdin) : await readFile(file);
  const prepared = prepareBatch(createHashing(), new Uint8Array(source));
  const pair = await signer(flags);
  const batch = await withLedger(flags.node, (ledger) => hand(ledger, pair, datanet as DatanetId, prepared));
  const { records, blob, hash } = prepared;
  print(
    flags,
    { datanet, batch, records, bytes: blob.length, blob: hash },
    () => `Batch ${batch} of Datanet ${datanet}: ${records} records, ${blob.length} bytes; validators have them.`,
  );
}

async function curate(
  datanet: number,
  batch: number,
  flags: SignerFlags & { readonly refuse?: boolean },
): Promise<void> {
  const { curate: decide } = await clients();
  const pair = await signer(flags);
  const admit = flags.refuse !== true;
  await withLedger(flags.node, (ledger) => decide(ledger, pair, datanet as DatanetId, batch, admit));
  print(flags, { datanet, batch, admitted: admit }, () => `Batch ${batch} is ${admit ? 'admitted' : 'refused'}.`);
}

async function snapshot(datanet: number, flags: SignerFlags): Promise<void> {
  const { snapshotOf, takeSnapshot } = await clients();
  const pair = await signer(flags);
  const taken = await withLedger(flags.node, async (ledger) => {
    const version = await takeSnapshot(ledger, pair, datanet as DatanetId);
    return { version, ...(await snapshotOf(ledger, datanet as DatanetId, version)) };
  });
  const { version, count, root, ranges } = taken;
  print(
    flags,
    { datanet, version, records: count, root, batches: ranges },
    () => `Snapshot ${version} of Datanet ${datanet}: ${count} records in ${ranges} batches.`,
  );
}

async function show(datanet: number | undefined, flags: ClientFlags): Promise<void> {
  const { availabilityOf, batchesOf, datanetOf, datanets } = await clients();
  const { table } = await import('../table.ts');
  await withLedger(flags.node, async (ledger) => {
    if (datanet === undefined) {
      const all = await datanets(ledger);
      print(
        flags,
        all.map(({ id: number, value }) => ({ datanet: number, ...told(value) })),
        () =>
          all.length === 0
            ? 'There is no Datanet yet.'
            : table(
                ['>Id', 'Name', 'Owner', 'Licence', 'Admission', '>Records', '>Snapshots', '>Access, OPEN'],
                all.map(({ id: number, value }) => [
                  String(number),
                  value.name,
                  addressOf(value.owner),
                  value.licence,
                  value.admission.type.toLowerCase(),
                  String(value.admitted),
                  String(value.snapshots),
                  formatOpen(value.accessPrice),
                ]),
              ),
      );
      return;
    }
    const value = await datanetOf(ledger, datanet as DatanetId);
    const batches = await batchesOf(ledger, datanet as DatanetId);
    const { validators, holders } = await availabilityOf(
      ledger,
      batches.map(({ batch }) => batch.claim),
    );
    const rows = batches.map(({ index, batch }, at) => ({
      batch: index,
      contributor: addressOf(batch.contributor),
      records: batch.records,
      bytes: batch.bytes,
      status: batch.status.type.toLowerCase(),
      stake: batch.stake,
      blob: batch.blob,
      holders: holders[at],
    }));
    print(flags, { datanet, ...told(value), validators, batches: rows }, () =>
      [
        `Datanet ${datanet} “${value.name}” by ${addressOf(value.owner)}`,
        value.description,
        `Licence ${value.licence}; ${value.admission.type.toLowerCase()} admission; a batch stakes ${formatOpen(value.stake)} OPEN,`,
        `an order pays ${formatOpen(value.accessPrice)} OPEN; records that overlap by ${Math.round(value.dedupThreshold / 655.36)} % are duplicates.`,
        `${value.admitted} records of ${value.contributors} contributors in ${value.admittedBatches} batches, ${value.keptSnapshots} snapshots.`,
        table(
          ['>Batch', 'Contributor', '>Records', '>Bytes', 'Status', '>Stake, OPEN', `>Held, of ${validators}`],
          rows.map((row) => [
            String(row.batch),
            row.contributor,
            String(row.records),
            String(row.bytes),
            row.status,
            formatOpen(row.stake),
            String(row.holders),
          ]),
        ),
      ].join('\n'),
    );
  });
}

type Stored = Awaited<ReturnType<Awaited<ReturnType<typeof clients>>['datanetOf']>>;
const told = ({ owner, admission, ...rest }: Stored) => ({
  ...rest,
  owner: addressOf(owner),
  admission: admission.type.toLowerCase(),
});

export function datanetCommands(program: Command): void {
  const group = program.command('datanet').description('networks of records: open one, contribute, fix versions');
  withSignerFlags(group.command('create'))
    .description('open a Datanet; a deposit is held')
    .requiredOption('--name <name>', 'what it is called')
    .option('--description <text>', 'what is in it', '')
    .option('--schema <text>', 'what a record looks like: a JSON Schema, or words', '{"type":"object"}')
    .option('--licence <id>', 'SPDX identifier or URL; orders accept it', 'CC-BY-4.0')
    .option('--curated', 'you or your curators admit every batch')
    .addOption(new Option('--stake <open>', 'OPEN that a batch stakes').argParser(parseOpen).default(OPEN, '1'))
    .addOption(new Option('--overlap <part>', 'from which on records are duplicates').argParser(part).default(0.8))
    .addOption(new Option('--access-price <open>', 'what an order pays you').argParser(parseOpen).default(0n, '0'))
    .action(create);
  withSignerFlags(group.command('contribute'))
    .description('contribute a file of JSON objects, one a line; its stake is held')
    .argument('<datanet>', 'its number', id)
    .argument('<file>', 'JSONL, or - for standard input')
    .action(contribute);
  withSignerFlags(group.command('curate'))
    .description('admit a batch that waits for it, or refuse it')
    .argument('<datanet>', 'its number', id)
    .argument('<batch>', 'its number', id)
    .option('--refuse', 'refuse it: the stake goes back')
    .action(curate);
  withSignerFlags(group.command('snapshot'))
    .description('fix a version of everything that is admitted, to train on')
    .argument('<datanet>', 'its number', id)
    .action(snapshot);
  withClientFlags(group.command('show'))
    .description('show all Datanets, or one with its batches')
    .argument('[datanet]', 'its number', id)
    .action(show);
}
