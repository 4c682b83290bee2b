/**
 * What a machine and an account need before a worker earns anything, looked at one by one, each with what is to be done
 * about it. Nothing is changed and nothing signed.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, stat, statfs } from 'node:fs/promises';
import { freemem, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { accountOfAddress, addressOf } from '../../rpc/client/address.ts';
import { Ledger } from '../../rpc/client/ledger.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import { store as system } from '../../runtime/pallets/standard/system.ts';
import { store as timestamp } from '../../runtime/pallets/standard/timestamp.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import type { EngineChoice } from '../engines/choice.ts';
import { EngineError } from '../engines/engine-error.ts';
import { readModelConfig } from '../engines/torch/model-config.ts';
import { findPython, type PythonSearch } from '../engines/torch/python.ts';

const run = promisify(execFile);

export interface Finding {
  readonly what: string;
  /** `note`: it works, but not as well as it could. */
  readonly state: 'good' | 'note' | 'bad';
  readonly found: string;
  readonly advice?: string;
}

export interface DoctorOptions {
  readonly node: string;
  /** SS58 address of the worker's account; without it nothing is said about it. */
  readonly address: string | undefined;
  readonly bond: bigint;
  readonly engine: EngineChoice;
  readonly modelDirectory: string;
  /** Of the journal. */
  readonly directory: string;
  readonly environment?: NodeJS.ProcessEnv;
}

const GIB = 2 ** 30;
const OLDEST_NODE = 20;
/** A checkpoint, the snapshot's records and large tensors. */
const DISK_BYTES = 2 * GIB;
const SCARCE_DISK_BYTES = 10 * GIB;
/** Leases and vouchers bear times: what may be off. */
const CLOCK_MS = 15_000;
/** Blocks older than this say that the node is behind or the chain stands. */
const STALE_MS = 120_000;
const CONNECT_MS = 10_000;
const FEES = 10n ** 17n;
const PACKAGE = fileURLToPath(new URL('../engines/torch/', import.meta.url));

const gib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`;
const good = (what: string, found: string): Finding => ({ what, state: 'good', found });
const note = (what: string, found: string, advice: string): Finding => ({ what, state: 'note', found, advice });
const bad = (what: string, found: string, advice: string): Finding => ({ what, state: 'bad', found, advice });

/** Findings as they come, in the order in which a newcomer meets them. */
export async function* examine(options: DoctorOptions): AsyncGenerator<Finding> {
  yield nodeVersion(process.versions.node);
  const search = options.engine === 'embedded' ? undefined : await findPython(options.environment);
  if (search !== undefined) {
    yield python(search, options.engine);
    if (search.found) yield* torch(search.python.program, options.environment);
  }
  const model = await modelFiles(options.modelDirectory);
  yield model.finding;
  if (model.bytes > 0) yield memory(model.bytes, freemem(), totalmem());
  yield await disk('disk of the worker', options.directory);
  yield await disk('disk for temporary files', tmpdir());
  yield* await ledger(options);
}

export function nodeVersion(version: string): Finding {
  const what = 'Node.js';
  return Number(version.split('.')[0]) >= OLDEST_NODE
    ? good(what, version)
    : bad(
        what,
        version,
        `run it by "npm run openledger -- …", which brings its own, or install Node.js ${OLDEST_NODE}`,
      );
}

export function python(search: PythonSearch, choice: EngineChoice): Finding {
  const what = 'Python with torch';
  if (search.found) {
    const { program, version, packages } = search.python;
    return good(what, `${program} is ${version}, torch ${packages.torch}, transformers ${packages.transformers}`);
  }
  const { reason, advice } = search;
  if (choice === 'torch') return bad(what, reason, advice);
  return note(
    what,
    reason,
    `the embedded engine will be used, which is for models of some 10 M parameters; else ${advice}`,
  );
}

/** Imports torch: what is installed may still not run. */
async function* torch(program: string, environment: NodeJS.ProcessEnv = process.env): AsyncGenerator<Finding> {
  const scratch = await mkdtemp(join(tmpdir(), 'openledger-doctor-'));
  try {
    const { stdout } = await run(program, ['-m', 'openledger_torch', '--probe', '--scratch', scratch], {
      timeout: 180_000,
      cwd: scratch,
      env: { ...environment, PYTHONPATH: PACKAGE, PYTHONDONTWRITEBYTECODE: '1' },
    });
    const { gpus, memory } = JSON.parse(stdout) as { gpus: string[]; memory: number[] };
    if (gpus.length === 0) {
      yield note(
        'CUDA',
        'torch sees no GPU: it will compute on the CPU',
        'if there is one, look at nvidia-smi for the driver, and install torch’s build for its CUDA version',
      );
    }
    for (const [i, name] of gpus.entries()) yield good('CUDA', `${name}, ${gib(memory[i] ?? 0)} free`);
  } catch (problem) {
    const { stderr = '', message } = problem as { stderr?: string; message: string };
    const last = stderr.trim().split('\n').at(-1) || message;
    yield bad(
      'CUDA',
      `torch does not start: ${last.slice(0, 300)}`,
      'make its environment anew from requirements.lock',
    );
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function modelFiles(directory: string): Promise<{ finding: Finding; bytes: number }> {
  const what = 'base model';
  const advice = 'give --model a directory in Hugging Face layout: config.json, tokenizer.json, *.safetensors';
  try {
    await readModelConfig(directory);
    const names = await readdir(directory);
    const weights = names.filter((name) => name.endsWith('.safetensors'));
    if (weights.length === 0 || !names.includes('tokenizer.json')) {
      const missing = weights.length === 0 ? 'no *.safetensors' : 'no tokenizer.json';
      return { finding: bad(what, `${missing} in ${directory}`, advice), bytes: 0 };
    }
    const sizes = await Promise.all(weights.map(async (name) => (await stat(join(directory, name))).size));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    return { finding: good(what, `${directory}, ${(bytes / 2 ** 20).toFixed(0)} MiB`), bytes };
  } catch (problem) {
    const why = problem instanceof EngineError ? problem.message : (problem as Error).message;
    return { finding: bad(what, why, advice), bytes: 0 };
  }
}

/** `bytes`: of the weights. Loading, caches and gradients want about as much again. */
export function memory(bytes: number, free: number, total: number): Finding {
  const what = 'memory';
  const wanted = 2 * bytes + GIB;
  const found = `${gib(free)} free of ${gib(total)}; about ${gib(wanted)} wanted`;
  if (total < wanted) return bad(what, found, 'take a smaller base model or a larger machine');
  return free < wanted ? note(what, found, 'end other programs, or expect swapping') : good(what, found);
}

async function disk(what: string, directory: string): Promise<Finding> {
  let existing = directory;
  for (;;) {
    try {
      const { bavail, bsize } = await statfs(existing);
      const free = bavail * bsize;
      const found = `${gib(free)} free at ${directory}`;
      if (free < DISK_BYTES)
        return bad(what, found, `free ${gib(DISK_BYTES)} at least, or move it (--base-path, TMPDIR)`);
      return free < SCARCE_DISK_BYTES ? note(what, found, 'adapters and checkpoints may fill it') : good(what, found);
    } catch (problem) {
      const parent = dirname(existing);
      if (parent === existing) return bad(what, (problem as Error).message, 'give another --base-path');
      existing = parent;
    }
  }
}

async function ledger({ node, address, bond }: DoctorOptions): Promise<Finding[]> {
  const findings: Finding[] = [];
  let connection: Ledger;
  const late = AbortSignal.timeout(CONNECT_MS);
  try {
    connection = await Promise.race([
      Ledger.connect(node),
      new Promise<never>((_, reject) => {
        late.addEventListener('abort', () => reject(new Error(`no answer within ${CONNECT_MS / 1_000} s`)));
      }),
    ]);
  } catch (problem) {
    const advice = 'start a node ("openledger node", for a trial "npm start"), or name one with --node ws://…';
    return [bad('node', `${node}: ${(problem as Error).message}`, advice)];
  }
  try {
    const health = await connection.rpc.call<{ peers: number; isSyncing: boolean }>('system_health');
    const best = await connection.bestNumber();
    const state = `${node}, block ${best}, ${health.peers} peers`;
    findings.push(
      health.isSyncing
        ? note('node', `${state}, catching up`, 'wait until it is at the head: leases are given at the head only')
        : good('node', state),
    );
    const now = await connection.read(timestamp.Now);
    findings.push(clock(Number(now), Date.now()));
    if (address !== undefined) {
      for (const found of await account(connection, accountOfAddress(address), bond)) findings.push(found);
    }
  } catch (problem) {
    findings.push(bad('node', `${node}: ${(problem as Error).message}`, 'is it an OpenLedger node of this version?'));
  } finally {
    connection.close();
  }
  return findings;
}

/** `block`: time of the best block, which honest authors set by their clocks. */
export function clock(block: number, own: number): Finding {
  const what = 'clock';
  const ahead = own - block;
  if (ahead < -CLOCK_MS) {
    return bad(
      what,
      `${Math.round(-ahead / 1_000)} s behind the chain`,
      'let the system set it: timedatectl set-ntp true',
    );
  }
  if (ahead > STALE_MS) {
    const found = `the last block is ${Math.round(ahead / 1_000)} s old`;
    return note(what, found, 'the node is behind, the chain stands, or this clock is ahead (timedatectl set-ntp true)');
  }
  return good(what, `${Math.max(0, Math.round(ahead / 1_000))} s behind the best block`);
}

async function account(connection: Ledger, who: AccountId, bond: bigint): Promise<Finding[]> {
  const [{ data }, worker, { minBond }] = await connection.readTogether([
    connection.query(system.Account, who),
    connection.query(compute.store.Workers, who),
    connection.query(compute.store.Parameters),
  ]);
  return standing(addressOf(who), data.free, bond, worker, minBond);
}

export function standing(
  address: string,
  balance: bigint,
  bond: bigint,
  worker: compute.Worker | undefined,
  minBond: bigint,
): Finding[] {
  const open = (amount: bigint): string => `${Number(amount / 10n ** 14n) / 10_000} OPEN`;
  const findings: Finding[] = [];
  if (worker === undefined) {
    const wanted = (bond > minBond ? bond : minBond) + FEES;
    const found = `${address} has ${open(balance)}`;
    if (bond < minBond) findings.push(bad('bond', `--bond ${open(bond)}`, `the least bond is ${open(minBond)}`));
    findings.push(
      balance < wanted
        ? bad('balance', found, `send it ${open(wanted - balance)} more: the bond and fees are paid from it`)
        : good('balance', `${found}: enough for the bond of ${open(bond)} and fees`),
    );
    return findings;
  }
  const advice = 'send it some for fees, or claim what it earned: "openledger rewards claim"';
  findings.push(
    balance < FEES ? bad('balance', open(balance), advice) : good('balance', `${address} has ${open(balance)}`),
  );
  if (worker.leaving !== undefined) {
    findings.push(
      bad('bond', `leaving until block ${worker.leaving}`, 'withdraw, then start the worker to register anew'),
    );
  } else if (worker.bond < minBond || worker.bond < worker.atStake) {
    const found = `${open(worker.bond)} after slashes of ${open(worker.slashed)}`;
    findings.push(
      bad(
        'bond',
        found,
        `add to it: the least bond is ${open(minBond)}, and ${open(worker.atStake)} are at stake (compute.bondMore)`,
      ),
    );
  } else {
    findings.push(
      worker.slashed > 0n
        ? note(
            'bond',
            `${open(worker.bond)}; ${open(worker.slashed)} were slashed`,
            'look at the log for lost leases and audits',
          )
        : good('bond', `${open(worker.bond)}, registered since block ${worker.since}`),
    );
  }
  return findings;
}
