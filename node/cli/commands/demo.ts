/** `openledger demo`. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { LocalSigner } from '../../../rpc/client/signer.ts';
import type { Hashing } from '../../../runtime/host.ts';
import type { Log } from '../../ports/machine.ts';
import { keepRunning, type Listening } from '../child.ts';
import { stopSignal } from '../options.ts';

interface DemoFlags {
  readonly node?: string;
  readonly gateway: string;
  readonly key: string;
  readonly short?: boolean;
  readonly json?: boolean;
  readonly reclaim?: string;
}

const DEFAULT_NODE = 'ws://127.0.0.1:9944';
/** Of the ledger that the demonstration brings up for itself. */
const BLOCK_MS = 2_000;
const START_MS = 180_000;
const SERVED_MS = 60_000;

interface Place {
  readonly node: string;
  readonly gateway: string;
}

async function runDemo(flags: DemoFlags): Promise<void> {
  const started = Date.now();
  const tell = (words: string): void => {
    const seconds = Math.round((Date.now() - started) / 1000);
    process.stderr.write(`[${String(seconds).padStart(3)} s] ${words}\n`);
  };
  const [{ Ledger }, { openKey }, { createHashing }, { FULL, SHORT, runLoop }, { newRun }, { demoDomains }, report] =
    await Promise.all([
      import('../../../rpc/client/ledger.ts'),
      import('../account-key.ts'),
      import('../../crypto/hashing.ts'),
      import('../demo/loop.ts'),
      import('../demo/accounts.ts'),
      import('../demo/records.ts'),
      import('../demo/report.ts'),
    ]);
  const funder = await openKey(flags.key);
  if (flags.reclaim !== undefined) {
    await takeBack(flags, funder, flags.reclaim);
    return;
  }
  const run = newRun();
  const hashing = createHashing();
  const size = flags.short ? SHORT : FULL;
  // Before anything is connected: reading the dictionary keeps this thread busy for a while.
  const domains = demoDomains(size.records, size.held);
  const stop = new AbortController();
  const interrupted = stopSignal();
  const signal = AbortSignal.any([interrupted, stop.signal]);
  const running = await reachable(flags.node ?? DEFAULT_NODE);
  let own: OwnLedger | undefined;
  if (!running) {
    if (flags.node !== undefined) await Ledger.connect(flags.node);
    tell('no ledger runs: one is brought up for this');
    own = await bringUp(signal);
  }
  const place: Place = own?.place ?? { node: flags.node ?? DEFAULT_NODE, gateway: flags.gateway };
  try {
    tell(`ledger at ${place.node}`);
    const ledger = await Ledger.connect(place.node);
    const doors = new Doors(place, funder, run, hashing);
    try {
      const gateway = (model: string) => doors.open(model, tell);
      const loop = runLoop({ ledger, domains, funder, run, size, hashing, gateway, tell });
      const outcome = await unless(interrupted, loop);
      if (outcome === undefined) {
        tell('interrupted: what is ordered already goes on without this process');
        if (own === undefined) tell(`what its accounts have comes back by: ${reclaiming(flags, run)}`);
        process.exitCode = INTERRUPTED;
        return;
      }
      const lines = report.standings(outcome);
      const results = report.checks(outcome, lines, flags.short === true);
      const seconds = Math.round((Date.now() - started) / 1000);
      if (flags.json) {
        const told = { seconds, contributors: lines, losses: outcome.losses, answers: outcome.answers.length };
        process.stdout.write(`${JSON.stringify({ ...told, checks: results }, plain)}\n`);
      } else process.stdout.write(`${report.printed(outcome, lines, results)}\n${seconds} s\n`);
      if (own === undefined) tell(`what the run’s accounts have left comes back by: ${reclaiming(flags, run)}`);
      if (results.some(({ holds }) => !holds)) process.exitCode = 1;
    } finally {
      await doors.close();
      ledger.close();
    }
  } finally {
    stop.abort();
    await own?.ended;
    // What the loop waits for would keep the process alive, long after its ledger is disconnected.
    if (interrupted.aborted) process.exit(INTERRUPTED);
  }
}

const reclaiming = ({ node, key }: DemoFlags, run: string): string =>
  ['openledger demo', ...(node === undefined ? [] : ['--node', node]), '--key', key, '--reclaim', run].join(' ');

async function takeBack({ node, json }: DemoFlags, funder: LocalSigner, run: string): Promise<void> {
  const [{ Ledger }, { reclaim }, { formatOpen }] = await Promise.all([
    import('../../../rpc/client/ledger.ts'),
    import('../demo/accounts.ts'),
    import('../amounts.ts'),
  ]);
  const ledger = await Ledger.connect(node ?? DEFAULT_NODE);
  try {
    const { returned, held, freeFrom } = await reclaim(ledger, funder, run);
    const words =
      held === 0n
        ? ''
        : `; ${formatOpen(held)} OPEN are still on hold: stakes and deposits come free from the blocks ${freeFrom.join(', ')} on`;
    process.stdout.write(
      json
        ? `${JSON.stringify({ returned, held, freeFrom }, plain)}\n`
        : `${formatOpen(returned)} OPEN came back${words}\n`,
    );
  } finally {
    ledger.close();
  }
}

/** As shells have it: 128 and the signal's number. */
const INTERRUPTED = 130;

/** What comes of the work, or undefined once the signal comes; what the work then fails with is nobody's business. */
function unless<T>(signal: AbortSignal, work: Promise<T>): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const stop = (): void => resolve(undefined);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

const plain = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? value.toString() : value);

async function reachable(node: string): Promise<boolean> {
  const { JsonRpcClient } = await import('../../../rpc/client/json-rpc.ts');
  try {
    (await JsonRpcClient.connect(node)).close();
    return true;
  } catch {
    return false;
  }
}

interface OwnLedger {
  readonly place: Place;
  readonly ended: Promise<void>;
}

/** A development ledger on free ports, gone with the signal. */
async function bringUp(signal: AbortSignal): Promise<OwnLedger> {
  const directory = await mkdtemp(join(tmpdir(), 'openledger-demo-'));
  const log: Log = (level, message) => {
    if (level === 'error' || level === 'warn') process.stderr.write(`  ${message}\n`);
  };
  let resolve: (place: Place) => void = () => {};
  const up = new Promise<Place>((done) => {
    resolve = done;
  });
  const ready = ({ node, gateway }: Listening): void => {
    if (node !== undefined && gateway !== undefined) resolve({ node, gateway });
  };
  const ports = ['--rpc-port', '0', '--gateway-port', '0', '--block-time', String(BLOCK_MS)];
  const args = ['dev', '--base-path', directory, ...ports, '--log', 'warn'];
  const over = new AbortController();
  const until = AbortSignal.any([signal, over.signal]);
  const ended = keepRunning({ name: 'ledger', args, log, ready }, until).then(() =>
    rm(directory, { recursive: true, force: true }),
  );
  const late = delay(START_MS, undefined, { signal: until }).then(() => {
    throw new Error('the ledger did not come up');
  });
  try {
    return { place: await Promise.race([up, late]), ended };
  } catch (problem) {
    over.abort();
    await ended;
    throw problem;
  }
}

/** The ledger's own gateway where it serves what was trained, or one of this process. */
class Doors {
  readonly #place: Place;
  readonly #payer: LocalSigner;
  readonly #run: string;
  readonly #hashing: Hashing;
  #own: { readonly url: string; close(): Promise<void> } | undefined;

  constructor(place: Place, payer: LocalSigner, run: string, hashing: Hashing) {
    this.#place = place;
    this.#payer = payer;
    this.#run = run;
    this.#hashing = hashing;
  }

  async open(model: string, tell: (words: string) => void): Promise<string> {
    if (this.#own === undefined && !(await serves(this.#place.gateway))) {
      const [{ startGateway }, { sessionKeyOf }] = await Promise.all([
        import('../../../rpc/gateway/gateway.ts'),
        import('../demo/accounts.ts'),
      ]);
      tell(`no gateway at ${this.#place.gateway}: one of the demonstration's own is used`);
      this.#own = await startGateway({
        node: this.#place.node,
        host: '127.0.0.1',
        port: 0,
        session: undefined,
        key: sessionKeyOf(this.#payer, this.#run),
        funding: { payer: this.#payer, deposit: 20n * 10n ** 18n },
        apiKey: undefined,
        stateFile: undefined,
        hashing: this.#hashing,
        log: (level, message) => {
          if (level === 'error') tell(message);
        },
      });
    }
    const url = this.#own?.url ?? this.#place.gateway;
    const { DemoError } = await import('../demo/loop.ts');
    for (const end = Date.now() + SERVED_MS; ; await delay(500)) {
      if (await serves(url, model)) return url;
      if (Date.now() > end) throw new DemoError('NOT_SERVED', `${url} does not serve ${model}`);
    }
  }

  async close(): Promise<void> {
    await this.#own?.close();
  }
}

/** Whether a gateway answers at all, or has the model. */
async function serves(url: string, model?: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/models`, { signal: AbortSignal.timeout(5_000) });
    const { data } = (await response.json()) as { data: { id: string }[] };
    return model === undefined || data.some(({ id }) => id === model);
  } catch {
    return false;
  }
}

function run(text: string): string {
  if (!/^[0-9a-f]{8}$/.test(text)) throw new InvalidArgumentError('the name of a run, as it was told at its end');
  return text;
}

export function demoCommands(program: Command): void {
  program
    .command('demo')
    .description('show the whole loop on real text: contribute, train, ask, settle, claim, and check every sum')
    .addOption(
      new Option('--node <url>', `JSON-RPC of a ledger (default: ${DEFAULT_NODE} if one runs, else an own one)`),
    )
    .addOption(new Option('--gateway <url>', 'where it is asked').default('http://127.0.0.1:8080/v1'))
    .addOption(new Option('--key <key>', 'whose OPEN is used').default('//Alice'))
    .addOption(
      new Option('--reclaim <run>', 'no demonstration: take back what an earlier run’s accounts have').argParser(run),
    )
    .addOption(new Option('--short', 'a minute’s worth: every stage, too few records to learn from'))
    .addOption(new Option('--json', 'the result for programs'))
    .action(runDemo);
}
