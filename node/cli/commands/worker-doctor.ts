/** `openledger worker doctor` and `openledger worker status`. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { ENGINE_CHOICES, type EngineChoice } from '../../../gpu-worker/engines/choice.ts';
import { formatOpen, parseOpen } from '../amounts.ts';
import { withNodeFlag } from '../options.ts';

interface DoctorFlags {
  readonly node: string;
  readonly key?: string;
  readonly passwordFile?: string;
  readonly address?: string;
  readonly model?: string;
  readonly engine: EngineChoice;
  readonly bond: bigint;
  readonly basePath?: string;
}

const MARKS = { good: '✓', note: '!', bad: '✗' } as const;
const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function diagnose(flags: DoctorFlags): Promise<void> {
  const [{ examine }, { SHIPPED_MODEL }] = await Promise.all([
    import('../../../gpu-worker/operator/doctor.ts'),
    import('../../../gpu-worker/start.ts'),
  ]);
  let { address } = flags;
  if (address === undefined && flags.key !== undefined) {
    const { openKey } = await import('../account-key.ts');
    ({ address } = await openKey(flags.key, flags.passwordFile));
  }
  const findings = examine({
    node: flags.node,
    address,
    bond: flags.bond,
    engine: flags.engine,
    modelDirectory: flags.model ?? SHIPPED_MODEL,
    directory: flags.basePath ?? join(homedir(), '.openledger', 'worker'),
  });
  let failures = 0;
  for await (const { what, state, found, advice } of findings) {
    say(`${MARKS[state]} ${what}: ${found}`);
    if (advice !== undefined) say(`    → ${advice}`);
    if (state === 'bad') failures++;
  }
  if (address === undefined) say('! account: not looked at; give --key or --address');
  say(failures === 0 ? 'A worker can run here.' : `${failures} to be mended before a worker can run here.`);
  if (failures > 0) process.exitCode = 1;
}

interface StatusFlags {
  readonly basePath?: string;
  readonly json?: boolean;
}

async function tell(flags: StatusFlags): Promise<void> {
  const { runningWorkers, earnings } = await import('../../../gpu-worker/operator/running-workers.ts');
  const workers = await runningWorkers(flags.basePath ?? join(homedir(), '.openledger', 'worker'));
  if (flags.json === true) {
    say(JSON.stringify(workers, null, 2));
    return;
  }
  if (workers.length === 0) {
    say('No worker runs here. Start one with "openledger worker --key …".');
    process.exitCode = 1;
  }
  for (const status of workers) {
    const { address, engine, model, node, attached, task, serving, engineMetrics, receipts } = status;
    const hours = ((Date.now() - status.since) / 3_600_000).toFixed(1);
    say(`${address}: ${engine} with ${model}, ${attached ? 'attached to' : 'not attached to'} ${node}, up ${hours} h`);
    if (task === undefined) say('  task      none');
    else {
      const { progress } = task;
      const step =
        progress === undefined ? '' : `, step ${progress.step} of ${progress.total}, loss ${progress.loss.toFixed(3)}`;
      say(`  task      order ${task.order}: ${task.phase}${step}`);
    }
    say(`  done      ${status.answers} answers, ${status.trainings} trainings, ${status.audits} audits`);
    const { active, waiting, generatedTokens, memoryBytes, tiers, restarts } = engineMetrics;
    const speed = status.tokensPerSecond.toFixed(1);
    say(`  tokens    ${speed}/s now, ${generatedTokens} in all; ${active} sequences running, ${waiting} waiting`);
    say(`  serving   ${serving.length} adapters`);
    if (tiers !== undefined)
      say(`  tiers     ${tiers.device} on the device, ${tiers.host} in memory, ${tiers.disk} on disk`);
    say(
      `  memory    ${(memoryBytes / 2 ** 20).toFixed(0)} MiB${restarts ? `, engine restarted ${restarts} times` : ''}`,
    );
    say(`  receipts  ${receipts.waiting} wait for settlement, ${receipts.settled} settled`);
    const earned = await earnings(status).catch(() => undefined);
    if (earned === undefined) say(`  OPEN      ${node} does not answer`);
    else {
      const { bond, earned: all, claimable, free } = earned;
      say(
        `  OPEN      ${formatOpen(all)} earned, ${formatOpen(claimable)} to claim, ${formatOpen(free)} free, bond ${formatOpen(bond)}`,
      );
    }
  }
}

export function workerCareCommands(worker: Command): void {
  withNodeFlag(worker.command('doctor').description('look whether a worker can run here, and say what is to be done'))
    .option('--key <key>', 'the worker’s key, of which only the address is used')
    .option('--password-file <file>', 'password of the key file')
    .option('--address <ss58>', 'the worker’s account, instead of its key')
    .option('--model <dir>', 'base model (default: the one that comes along)')
    .addOption(new Option('--engine <kind>', 'as for the worker').choices(ENGINE_CHOICES).default('auto'))
    .addOption(new Option('--bond <open>', 'OPEN to register with').argParser(parseOpen).default(10n ** 21n, '1000'))
    .option('--base-path <dir>', 'of the worker')
    .action(diagnose);
  worker
    .command('status')
    .description('tell what the workers on this machine are doing and what they earned')
    .option('--base-path <dir>', 'of one worker (default: all below ~/.openledger/worker)')
    .option('--json', 'all of it, for programs')
    .action(tell);
}
