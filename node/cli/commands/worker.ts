/** `openledger worker`. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { ENGINE_CHOICES, type EngineChoice } from '../../../gpu-worker/engines/choice.ts';
import { CHECKPOINT_STEPS } from '../../../gpu-worker/options.ts';
import type { LogLevel } from '../../logging.ts';
import { parseOpen } from '../amounts.ts';
import { count, port, stopSignal, withKeyFlags, withLogFlag, withNodeFlag } from '../options.ts';
import { workerCareCommands } from './worker-doctor.ts';

interface WorkerFlags {
  readonly node: string;
  readonly key: string;
  readonly passwordFile?: string;
  readonly basePath?: string;
  readonly model?: string;
  readonly engine: EngineChoice;
  readonly metricsPort: number;
  readonly url?: string;
  readonly trainProcesses?: number;
  readonly licence: string;
  readonly bond: bigint;
  readonly training: boolean;
  readonly serving: boolean;
  readonly auditing: boolean;
  readonly maxAdapters: number;
  readonly settleEvery: number;
  readonly plantFaults?: string;
  readonly plantEvery: number;
  readonly log: LogLevel;
}

async function work(flags: WorkerFlags): Promise<void> {
  const signal = stopSignal();
  const [{ createLog }, { createHashing }, { createSignatures }, { openKey }, { SHIPPED_MODEL, startWorker }] =
    await Promise.all([
      import('../../logging.ts'),
      import('../../crypto/hashing.ts'),
      import('../../crypto/signatures.ts'),
      import('../account-key.ts'),
      import('../../../gpu-worker/start.ts'),
    ]);
  const log = createLog(flags.log);
  const pair = await openKey(flags.key, flags.passwordFile);
  const payer = flags.plantFaults === undefined ? undefined : await openKey(flags.plantFaults);
  await startWorker(
    {
      node: flags.node,
      key: pair,
      directory: flags.basePath ?? join(homedir(), '.openledger', 'worker', pair.address),
      modelDirectory: flags.model ?? SHIPPED_MODEL,
      engineChoice: flags.engine,
      telemetryPort: flags.metricsPort,
      ...(flags.url !== undefined && { vllmUrl: flags.url }),
      ...(flags.trainProcesses !== undefined && { trainProcesses: flags.trainProcesses }),
      licence: flags.licence,
      bond: flags.bond,
      training: flags.training,
      serving: flags.serving,
      auditing: flags.auditing,
      ...(payer !== undefined && { planting: { payer, everyMs: flags.plantEvery * 60_000 } }),
      maxAdapters: flags.maxAdapters,
      settleMs: flags.settleEvery * 1_000,
      checkpointSteps: CHECKPOINT_STEPS,
      hashing: createHashing(),
      signatures: await createSignatures(),
      log,
    },
    signal,
  );
  log('info', 'stopped');
}

export function workerCommands(program: Command): void {
  const worker = program
    .command('worker')
    .description('attach this machine to a node: train adapters, answer requests, earn OPEN')
    .summary('train adapters, answer requests, earn OPEN');
  const run = worker.command('run', { isDefault: true }).description('run the worker (what "worker" alone does)');
  withLogFlag(withKeyFlags(withNodeFlag(run)))
    .addOption(
      new Option('--base-path <dir>', 'what the worker must not forget (default: ~/.openledger/worker/ADDRESS)'),
    )
    .addOption(new Option('--model <dir>', 'base model in Hugging Face layout (default: the one that comes along)'))
    .addOption(
      new Option('--engine <kind>', 'auto takes torch where Python has it').choices(ENGINE_CHOICES).default('auto'),
    )
    .addOption(new Option('--url <url>', 'of a vLLM server, for --engine vllm'))
    .addOption(
      new Option('--train-processes <n>', 'GPUs that the torch engine spreads a training over (default: 1)').argParser(
        count,
      ),
    )
    .addOption(
      new Option('--metrics-port <port>', 'Prometheus on the loopback (default: any that is free)')
        .argParser(port)
        .default(0, 'any that is free'),
    )
    .addOption(new Option('--licence <id>', 'of the base model, where this worker registers it').default('Apache-2.0'))
    .addOption(new Option('--bond <open>', 'OPEN to register with').argParser(parseOpen).default(10n ** 21n, '1000'))
    .addOption(new Option('--no-training', 'take no training orders'))
    .addOption(new Option('--no-serving', 'answer no requests'))
    .addOption(new Option('--no-auditing', 'check no other workers'))
    .addOption(new Option('--max-adapters <n>', 'adapters served at most').argParser(count).default(64))
    .addOption(new Option('--settle-every <s>', 'seconds between settlements').argParser(count).default(60))
    .addOption(
      new Option('--plant-faults <key>', 'catch lazy auditors: an account that asks for answers with faults, and pays'),
    )
    .addOption(new Option('--plant-every <min>', 'minutes between two of them').argParser(count).default(60))
    .action(work);
  workerCareCommands(worker);
}
