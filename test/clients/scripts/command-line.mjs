import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { check, FUNDER, main, people, url } from '../check.mjs';

const bin = (name) => fileURLToPath(new URL(`../node_modules/.bin/${name}`, import.meta.url));

const run = (command, args, cwd) =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [bin(command), ...args], {
      cwd,
      timeout: 200_000,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.once('close', (code) => resolve({ code, output }));
  });

await main(async () => {
  const { funder, own } = await people('command-line');
  const directory = await mkdtemp(join(tmpdir(), 'clients-'));
  try {
    const query = await run('polkadot-js-api', ['--ws', url, 'query.system.account', funder.address], directory);
    check('polkadot-js-api reads an account', query.code === 0 && /"nonce"/.test(query.output), query.output);
    const transfer = await run(
      'polkadot-js-api',
      ['--ws', url, '--seed', FUNDER, 'tx.balances.transferKeepAlive', own[0].pair.address, '1000000000000000'],
      directory,
    );
    check(
      'polkadot-js-api sends a transfer',
      /"?isInBlock"?|inBlock|InBlock|ExtrinsicSuccess/.test(transfer.output),
      transfer.output,
    );
    const constants = await run('polkadot-js-api', ['--ws', url, 'consts.system.version'], directory);
    check('polkadot-js-api reads constants', /openledger/.test(constants.output), constants.output);
    await writeFile(join(directory, 'package.json'), '{"name":"clients","type":"module"}');
    const added = await run('papi', ['add', 'openledger', '-w', url, '--skip-codegen'], directory);
    const files = existsSync(join(directory, '.papi'))
      ? await readdir(join(directory, '.papi'), { recursive: true })
      : [];
    check(
      'papi adds the chain',
      added.code === 0 && files.some((name) => /metadata.*openledger|openledger.*scale/.test(name)),
      added.output,
    );
    const generated = await run('papi', ['generate'], directory);
    const descriptors = join(directory, '.papi', 'descriptors', 'dist', 'index.d.ts');
    check('papi generates descriptors', existsSync(descriptors), generated.output.slice(-500));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
