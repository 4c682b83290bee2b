/** Which Python there is, whether it has what the torch engine needs, and if not, what is to be done. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The oldest versions whose interfaces the engine uses. */
export const REQUIRED = { torch: '2.6', transformers: '5.0', safetensors: '0.5', numpy: '1.26' } as const;
export type Package = keyof typeof REQUIRED;
const OLDEST_PYTHON = '3.10';
const PATIENCE_MS = 30_000;

export interface Python {
  readonly program: string;
  readonly version: string;
  readonly packages: Readonly<Record<Package, string>>;
}

export type PythonSearch =
  | { readonly found: true; readonly python: Python }
  /** `reason` says what is wrong with the best candidate, `advice` what to do. */
  | { readonly found: false; readonly reason: string; readonly advice: string };

/** Versions as the packages' metadata have them: nothing is imported, so that it takes a tenth of a second. */
const QUESTION = `
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({"version": ".".join(map(str, sys.version_info[:3])), "packages": {n: version(n) for n in sys.argv[1:]}}))
`;

const ADVICE =
  'install them with "pip install -r gpu-worker/engines/torch/requirements.lock" into an environment, and set OPENLEDGER_PYTHON to its python';

/** `OPENLEDGER_PYTHON` alone if it is set, else the first of `python3` and `python` that has everything. */
export async function findPython(environment: NodeJS.ProcessEnv = process.env): Promise<PythonSearch> {
  const own = environment.OPENLEDGER_PYTHON;
  const candidates = own === undefined || own === '' ? ['python3', 'python'] : [own];
  let best: PythonSearch | undefined;
  for (const program of candidates) {
    const answer = await ask(program, environment);
    if (answer === undefined) continue;
    const reason = faultOf(answer);
    if (reason === undefined) return { found: true, python: { program, ...answer } as Python };
    best ??= { found: false, reason: `${program} ${reason}`, advice: ADVICE };
  }
  if (best !== undefined) return best;
  const missing =
    own === undefined || own === '' ? 'no python3 on the PATH' : `OPENLEDGER_PYTHON (${own}) does not run`;
  return { found: false, reason: missing, advice: `install Python ${OLDEST_PYTHON} or later; then ${ADVICE}` };
}

interface Answer {
  readonly version: string;
  readonly packages: Readonly<Record<Package, string | null>>;
}

async function ask(program: string, environment: NodeJS.ProcessEnv): Promise<Answer | undefined> {
  try {
    const { stdout } = await run(program, ['-c', QUESTION, ...Object.keys(REQUIRED)], {
      timeout: PATIENCE_MS,
      env: environment,
      // Not where the caller stands: a directory named like a package would be taken for it.
      cwd: '/',
    });
    return JSON.parse(stdout) as Answer;
  } catch {
    return undefined;
  }
}

function faultOf({ version, packages }: Answer): string | undefined {
  if (isOlder(version, OLDEST_PYTHON)) return `is Python ${version}; ${OLDEST_PYTHON} or later is needed`;
  const missing = Object.keys(REQUIRED).filter((name) => packages[name as Package] === null);
  if (missing.length > 0) return `(Python ${version}) has no ${missing.join(', ')}`;
  const old = Object.entries(REQUIRED).filter(([name, least]) => isOlder(packages[name as Package]!, least));
  if (old.length === 0) return undefined;
  return `has ${old.map(([name, least]) => `${name} ${packages[name as Package]} (at least ${least} is needed)`).join(', ')}`;
}

/** By the leading numbers; what is behind them (`+cu128`, `rc1`) does not count. */
export function isOlder(version: string, least: string): boolean {
  const numbers = (text: string): number[] => text.split(/[.+]/).map((part) => Number.parseInt(part, 10) || 0);
  const [own, wanted] = [numbers(version), numbers(least)];
  for (const [i, n] of wanted.entries()) {
    if ((own[i] ?? 0) !== n) return (own[i] ?? 0) < n;
  }
  return false;
}
