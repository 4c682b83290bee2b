import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ApiPromise, WsProvider } from '@polkadot/api';
import { check, FUNDER, main, people, request, UNIT, url } from '../check.mjs';

/** The tool takes numbers that JavaScript holds exactly, which here are thousandths of an OPEN. */
const SMALL = 2_000_000_000_000_000n;

const bin = (name) => fileURLToPath(new URL(`../node_modules/.bin/${name}`, import.meta.url));

/** `until`: ends the command when its output matches, for those that go on. */
const run = (command, args, cwd, until) =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [bin(command), ...args], {
      cwd,
      timeout: 400_000,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const output = { out: '', err: '' };
    child.stdout.on('data', (chunk) => {
      output.out += chunk;
      if (until?.test(output.out)) child.kill();
    });
    child.stderr.on('data', (chunk) => (output.err += chunk));
    child.once('close', (code) => resolve({ code, ...output, told: output.out + output.err }));
  });

/** What the tool may print beside its answer. */
const isQuiet = ({ err }) =>
  err.split('\n').every((line) => line.trim() === '' || /RPC methods not decorated/.test(line));

async function polkadotJs(directory) {
  const { funder, own } = await people('command-line');
  const tool = (...args) => run('polkadot-js-api', ['--ws', url, ...args], directory);
  const query = await tool('query.system.account', funder.address);
  check('polkadot-js-api reads an account', query.code === 0 && /"nonce"/.test(query.out), query.told);
  check('polkadot-js-api prints no warning', isQuiet(query), query.err);
  const constants = await tool('consts.system.version');
  check('polkadot-js-api reads constants', /"specName": "openledger"/.test(constants.out), constants.told);
  const final = await tool('rpc.chain.getFinalizedHead');
  check('polkadot-js-api calls JSON-RPC', /"getFinalizedHead": "0x[0-9a-f]{64}"/.test(final.out), final.told);
  for (const [what, method] of [
    ['best', 'subscribeNewHeads'],
    ['finalized', 'subscribeFinalizedHeads'],
  ]) {
    const args = ['--ws', url, '--sub', `rpc.chain.${method}`];
    const heads = await run('polkadot-js-api', args, directory, /(?:"number".*){3}/s);
    const numbers = [...heads.out.matchAll(/"number": "?([0-9a-fx,]+)/g)].map(([, number]) =>
      Number(number.replaceAll(',', '')),
    );
    check(
      `polkadot-js-api follows ${what} heads`,
      numbers.length >= 3 && numbers.every((each, i) => i === 0 || each > numbers[i - 1]),
      heads.told,
    );
  }
  const transfer = (seed, scheme, to, value, ...options) =>
    tool('--seed', seed, '--sign', scheme, ...options, 'tx.balances.transferKeepAlive', to, String(value));
  /** What the tool shows of the event of a paid fee, and of the block that it is in: it ends with the first that it hears of. */
  const outcome = async ({ out }) => {
    const block = /"(?:inBlock|finalized)": "(0x[0-9a-f]{64})"/.exec(out)?.[1];
    const paid = /"index": "0x0b00",\s*"data": \[\s*"[^"]+",\s*"?(\d+)"?,\s*"?(\d+)"?/.exec(
      out.slice(out.lastIndexOf('"events"')),
    );
    if (block === undefined || paid === null) return undefined;
    // The same transaction from the block, and what it was said to cost.
    const hash = /"txHash": "(0x[0-9a-f]{64})"/.exec(out)[1];
    const index = Number(/"txIndex": (\d+)/.exec(out)?.[1]);
    const { block: shown } = await request('chain_getBlock', block);
    const { partialFee } = await request('payment_queryInfo', shown.extrinsics[index], shown.header.parentHash);
    return { hash, actual: BigInt(paid[1]), tip: BigInt(paid[2]), estimated: BigInt(partialFee) };
  };
  const api = await ApiPromise.create({ provider: new WsProvider(url), noInitWarn: true });
  const money = own.map(({ pair }) => api.tx.balances.transferKeepAlive(pair.address, 20n * UNIT));
  await new Promise((resolve, reject) => {
    api.tx.utility
      .batchAll(money)
      .signAndSend(funder, ({ status }) => status.isFinalized && resolve())
      .catch(reject);
  });
  await api.disconnect();
  for (const { type, pair } of own) {
    const sent = await transfer(FUNDER, 'sr25519', pair.address, SMALL);
    const paid = await outcome(sent);
    check(
      `polkadot-js-api sends to an ${type} account; the fee is as estimated`,
      paid !== undefined && paid.actual === paid.estimated,
      sent.told,
    );
    const back = await transfer('//command-line', type, funder.address, SMALL, '--tip', '7');
    const tipped = await outcome(back);
    check(
      `polkadot-js-api, ${type}, with a tip`,
      tipped !== undefined && tipped.tip === 7n && tipped.actual === tipped.estimated + 7n,
      back.told,
    );
  }
  const batch = await tool(
    ...['--seed', '//command-line', 'tx.utility.batchAll'],
    JSON.stringify(['0x00000c010203', '0x00000c040506']),
  );
  check('polkadot-js-api sends a batch', (await outcome(batch)) !== undefined, batch.told);
  const stale = await transfer('//command-line', 'sr25519', funder.address, SMALL, '--nonce', '0');
  check(
    'polkadot-js-api is told what is wrong',
    /1010: Invalid Transaction: Transaction is outdated/.test(stale.told),
    stale.told,
  );
}

async function papi(directory) {
  await writeFile(join(directory, 'package.json'), '{"name":"clients","type":"module"}');
  const tool = (...args) => run('papi', args, directory);
  const added = await tool('add', 'openledger', '-w', url, '--skip-codegen');
  const files = existsSync(join(directory, '.papi'))
    ? await readdir(join(directory, '.papi'), { recursive: true })
    : [];
  check(
    'papi adds the chain',
    added.code === 0 && files.some((name) => /metadata.*openledger|openledger.*scale/.test(name)),
    added.told,
  );
  const updated = await tool('update', 'openledger', '--skip-codegen');
  check('papi updates its metadata', updated.code === 0, updated.told);
  const generated = await tool('generate');
  const descriptors = join(directory, '.papi', 'descriptors', 'dist', 'index.d.ts');
  check('papi generates descriptors', existsSync(descriptors), `${generated.code} ${generated.told.slice(-500)}`);
  const types = (
    await Promise.all(
      (
        await readdir(join(directory, '.papi', 'descriptors', 'dist'))
      )
        .filter((name) => name.endsWith('.d.ts'))
        .map((name) => readFile(join(directory, '.papi', 'descriptors', 'dist', name), 'utf8')),
    )
  ).join('\n');
  const lacking = ['Balances', 'Datanets', 'Attribution', 'transfer_keep_alive', 'AccountNonceApi'].filter(
    (name) => !types.includes(name),
  );
  check('papi describes the pallets', lacking.length === 0, lacking.join());
  const removed = await tool('remove', 'openledger');
  check('papi removes the chain', removed.code === 0, removed.told);
}

await main(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'clients-'));
  try {
    await polkadotJs(directory);
    await papi(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}, 900_000);
