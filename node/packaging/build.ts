/**
 * The packages that others install, built from the sources: compiled by TypeScript with types and source maps, each with what it
 * needs and nothing else. `npm pack` runs it for the package at hand.
 */
import { execFile } from 'node:child_process';
import { cp, glob, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

interface Package {
  /** Where its package.json stands; `dist` beside it is built. */
  readonly folder: string;
  /** Folders of the sources that belong to it. Where it is one, its files stand at the top of the package. */
  readonly sources: readonly string[];
  /** What is copied as it is, by patterns of {@link glob}. */
  readonly files: readonly string[];
  /** Whether the runtime's WebAssembly comes along. */
  readonly runtimeCode: boolean;
}

/** A package imports from a folder of another one by that one's name. */
const PACKAGES: Readonly<Record<string, Package>> = {
  '@openledger/runtime': { folder: 'node/packaging/runtime', sources: ['runtime'], files: [], runtimeCode: false },
  '@openledger/client': { folder: 'node/packaging/client', sources: ['rpc/client'], files: [], runtimeCode: false },
  openledger: {
    folder: '.',
    sources: ['runtime', 'consensus', 'p2p', 'rpc', 'node', 'gpu-worker'],
    files: [
      'package.json',
      'gpu-worker/models/glossa-3m/*',
      'gpu-worker/engines/torch/{pyproject.toml,requirements.lock,README.md}',
      'gpu-worker/engines/torch/openledger_torch/*.py',
    ],
    runtimeCode: true,
  },
};

/** Every relative specifier, and every `new URL('./module.ts', import.meta.url)`. */
const SPECIFIER = /(from |import\(|import |new URL\()(['"])(\.{1,2}\/[^'"]+)\2/g;

/** Where a compiled file stands in the package. */
const inPackage = (file: string, { sources }: Package): string =>
  sources.length === 1 ? file.slice(sources[0]!.length + 1) : file;

/** What a compiled file says instead: `.js` for `.ts`, and another package's name for a path into its folder. */
function relinked(text: string, file: string, own: Package): string {
  return text.replace(SPECIFIER, (_, before: string, quote: string, specifier: string) => {
    const linked = specifier.replace(/\.ts$/, '.js');
    const target = posix.join(posix.dirname(file), linked);
    const said = (where: string): string => `${before}${quote}${where}${quote}`;
    if (own.sources.some((each) => target.startsWith(`${each}/`)) || before.startsWith('new URL')) return said(linked);
    const [name, other] = Object.entries(PACKAGES).find(([, { sources }]) => target.startsWith(`${sources[0]}/`)) ?? [];
    if (name === undefined || other === undefined) throw new Error(`${file} imports ${specifier}, of no package`);
    return said(`${name}/${inPackage(target, other)}`);
  });
}

async function compile(out: string): Promise<void> {
  const compiler = join(ROOT, 'node_modules', 'typescript', 'lib', 'tsc.js');
  await promisify(execFile)(process.execPath, [compiler, '-p', 'tsconfig.build.json', '--outDir', out], { cwd: ROOT });
}

async function put(file: string, text: string | Uint8Array): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}

async function build(name: string, compiled: string): Promise<void> {
  const own = PACKAGES[name];
  if (own === undefined) throw new Error(`no package is named ${name}`);
  const dist = join(ROOT, own.folder, 'dist');
  await rm(dist, { recursive: true, force: true });
  for (const source of own.sources) {
    for await (const file of glob(`${source}/**/*.{js,d.ts,map}`, { cwd: compiled })) {
      const text = await readFile(join(compiled, file), 'utf8');
      await put(join(dist, inPackage(file, own)), file.endsWith('.map') ? text : relinked(text, file, own));
    }
  }
  for (const pattern of own.files) {
    for await (const file of glob(pattern, { cwd: ROOT }))
      await put(join(dist, file), await readFile(join(ROOT, file)));
  }
  if (own.runtimeCode) {
    const { runtimeCode } = await import('../wasm-builder/cache.ts');
    await put(join(dist, 'node/wasm-builder/runtime.wasm'), await runtimeCode());
  }
  if (own.folder !== '.') {
    await cp(join(ROOT, 'LICENSE'), join(ROOT, own.folder, 'LICENSE'));
    await cp(join(ROOT, own.sources[0]!, 'README.md'), join(ROOT, own.folder, 'README.md'));
  }
}

const [wanted] = process.argv.slice(2);
const names = wanted === undefined ? Object.keys(PACKAGES) : [wanted];
const compiled = await mkdtemp(join(tmpdir(), 'openledger-build-'));
try {
  await compile(compiled);
  for (const name of names) await build(name, compiled);
} finally {
  await rm(compiled, { recursive: true, force: true });
}
