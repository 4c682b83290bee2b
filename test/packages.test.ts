/** What others install: each package is packed, put into an empty project, imported, compiled against, bundled, run. */
import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import t from 'tap';

/** Without the test runner's hooks, which others who build and install do not have. */
const env: NodeJS.ProcessEnv = { ...process.env, NODE_OPTIONS: '' };
const run = (command: string, parameters: readonly string[], cwd: string) =>
  promisify(execFile)(command, parameters, { cwd, env });
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const MODULES = join(ROOT, 'node_modules');

const APPLICATION = `
import { LocalKey } from '@openledger/client/keys';
import { callOf, hashing, Ledger, type Signer, addressOf, pallets, toAccount } from '@openledger/client';
import { fromHex, toHex } from '@openledger/runtime/primitives/bytes';
import type { Datanet } from '@openledger/runtime/pallets/ledger/datanets';

const to = fromHex('0x${'11'.repeat(32)}') as Signer['account'];
export const call = callOf(pallets.balances.calls.transferKeepAlive, { dest: toAccount(to), value: 10n ** 18n });
export const name = async (ledger: Ledger): Promise<Datanet['name'] | undefined> =>
  (await ledger.read(pallets.datanets.store.Datanets, 0 as never))?.name;
// @ts-expect-error a misspelt item does not compile
export const wrong = pallets.datanets.store.Datanet;
export const key: Signer = LocalKey.fromUri('//Alice');
console.log(toHex(call.encode()), addressOf(to), toHex(hashing.twox64(new Uint8Array())));
`;

/** An empty project with the packages as they are published, and what they depend on from this project's own packages. */
async function project(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'packages-'));
  const pack = async (...of: string[]): Promise<string> => {
    const { stdout } = await run(
      'npm',
      ['pack', '--ignore-scripts', '--json', '--pack-destination', directory, ...of],
      ROOT,
    );
    return join(directory, (JSON.parse(stdout) as { filename: string }[])[0]!.filename);
  };
  const install = async (name: string, archive: string): Promise<void> => {
    const place = join(directory, 'node_modules', name);
    await mkdir(place, { recursive: true });
    await run('tar', ['-xzf', archive, '--strip-components=1', '-C', place], directory);
  };
  await run(process.execPath, ['node/packaging/build.ts'], ROOT);
  await install('@openledger/runtime', await pack('-w', '@openledger/runtime'));
  await install('@openledger/client', await pack('-w', '@openledger/client'));
  await install('openledger', await pack());
  const { dependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  for (const each of Object.keys(dependencies)) {
    const place = join(directory, 'node_modules', each);
    await mkdir(join(place, '..'), { recursive: true });
    await symlink(join(MODULES, each), place);
  }
  await writeFile(join(directory, 'package.json'), JSON.stringify({ name: 'application', type: 'module' }));
  await writeFile(join(directory, 'application.ts'), APPLICATION);
  return directory;
}

/** Runs the node of the package until it has made a block. */
async function firstBlock(directory: string): Promise<string> {
  const command = join(directory, 'node_modules/openledger/node/cli/openledger.mjs');
  const flags = ['node', '--dev', '--tmp', '--rpc-port', '0', '--port', '0', '--no-mdns', '--no-prometheus'];
  const child = spawn(process.execPath, [command, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: directory,
    env,
  });
  const lines: string[] = [];
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      lines.push(line);
      if (/best #[1-9]|"best":[1-9]|imported|proposed|prepared/i.test(line)) return line;
    }
    return `ended: ${lines.join('\n')}`;
  } finally {
    child.kill('SIGTERM');
    await new Promise((resolve) => child.once('exit', resolve));
  }
}

t.test('the packages hold what they need and nothing else, and work in an empty project', async (test) => {
  const directory = await project();
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  const installed = async (name: string): Promise<string[]> =>
    await readdir(join(directory, 'node_modules', name), { recursive: true });
  for (const name of ['@openledger/runtime', '@openledger/client', 'openledger']) {
    const files = await installed(name);
    test.same(
      files.filter((each) => /(^|\/)(test|vectors)\/|(?<!\.d)\.ts$|\.tgz$/.test(each)),
      [],
      `${name}: no tests, no vectors, no sources`,
    );
    test.ok(files.includes('LICENSE') && files.includes('README.md') && files.includes('package.json'), name);
    test.ok(files.some((each) => each.endsWith('.d.ts')) && files.some((each) => each.endsWith('.js.map')), name);
  }

  const compiler = join(MODULES, 'typescript', 'lib', 'tsc.js');
  const flags = ['--strict', '--module', 'nodenext', '--target', 'es2024', '--lib', 'esnext,dom', '--types', ''];
  const compiled = await run(process.execPath, [compiler, ...flags, 'application.ts'], directory).catch(
    (problem) => problem,
  );
  test.equal(compiled.stdout, '', 'an application compiles against the types');
  const { stdout } = await run(process.execPath, ['application.js'], directory);
  test.match(stdout, /^0x[0-9a-f]{4}00(11){32}13000064a7b3b6e00d 5\w+ 0x[0-9a-f]{16}\n$/, 'and runs');

  const { outputFiles } = await build({
    stdin: { contents: "export * from '@openledger/client';", resolveDir: directory },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    write: false,
  });
  const compressed = gzipSync(outputFiles[0]!.contents).length;
  test.ok(compressed < 150_000, `a browser loads ${compressed} bytes compressed`);

  const { stdout: version } = await run(
    process.execPath,
    [join(directory, 'node_modules/openledger/node/cli/openledger.mjs'), '--version'],
    directory,
  );
  const { version: own } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  test.equal(version.trim(), own, 'the command runs');
  test.notMatch(await firstBlock(directory), /^ended/, 'and its node makes blocks');
});
