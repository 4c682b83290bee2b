/** The commands for people against a node: what they print, and what they say when it goes wrong. */
import { execFile } from 'node:child_process';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { OPEN, startLedger, temporaryDirectory } from '../../main-job/support.ts';
import { type Ran, run } from '../../support/command.ts';

const MAIN = fileURLToPath(new URL('../../../node/cli/openledger.mjs', import.meta.url));

const spawned = (...args: readonly string[]): Promise<Ran> =>
  new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], (problem, out, error) => {
      resolve({ code: problem === null ? 0 : Number(problem.code), out, error });
    });
  });

/** One after the other. */
async function all<const R extends readonly (readonly string[])[]>(...runs: R): Promise<{ [K in keyof R]: Ran }> {
  const ran: Ran[] = [];
  for (const args of runs) ran.push(await run(args));
  return ran as { [K in keyof R]: Ran };
}

t.test('from the command line: Datanets, accounts, orders', { timeout: 110_000 }, async (test) => {
  const { node, ledger } = await startLedger(test);
  const directory = await temporaryDirectory(test);
  const at = ['--node', node.rpc.ws];
  const file = (name: string) => join(directory, name);
  await writeFile(
    file('good.jsonl'),
    '{"prompt": "What is a roux?", "response": "flour and fat"}\n{"text":"a whisk"}\n',
  );
  await writeFile(file('bad.jsonl'), '{"text":"fine"}\n{"text": oops}\n');
  await writeFile(file('twice.jsonl'), '{"a":1,"b":"x"}\n{"c":2}\n{"b":"x","a":1}\n');
  await writeFile(file('password'), 'quite secret\n');

  const [made, again] = await all(
    ['account', 'new', '--out', file('key.json'), '--password-file', file('password'), '--json'],
    ['datanet', 'create', ...at, '--key', '//Alice', '--name', 'Kitchen', '--stake', '2.5', '--json'],
  );
  test.equal(made.code, 0, made.error);
  const { address } = JSON.parse(made.out) as { address: string };
  test.equal((await stat(file('key.json'))).mode & 0o777, 0o600);
  test.notMatch(await readFile(file('key.json'), 'utf8'), /mnemonic|secret/i);
  test.same((JSON.parse(again.out) as { datanet: number }).datanet, 0);

  const sent = await run(['account', 'transfer', address, '100', ...at, '--key', '//Bob']);
  test.match(sent.out, /100 OPEN sent/);
  const mine = ['--key', file('key.json'), '--password-file', file('password')];
  const [bad, twice, wrong, unknown, given] = await all(
    ['datanet', 'contribute', '0', file('bad.jsonl'), ...at, ...mine],
    ['datanet', 'contribute', '0', file('twice.jsonl'), ...at, ...mine],
    [
      'datanet',
      'contribute',
      '0',
      file('good.jsonl'),
      ...at,
      '--key',
      file('key.json'),
      '--password-file',
      file('bad.jsonl'),
    ],
    ['datanet', 'contribute', '7', file('good.jsonl'), ...at, ...mine],
    ['datanet', 'contribute', '0', file('good.jsonl'), ...at, ...mine, '--json'],
  );
  test.match(bad, { code: 1, error: /line 2: not valid JSON.*\(RECORD_NOT_JSON\)/ });
  test.match(twice, { code: 1, error: /line 3: the same record as line 1 \(RECORD_REPEATED\)/ });
  test.match(wrong, { code: 1, error: /\(WRONG_PASSWORD\)/ });
  test.match(unknown, { code: 1, error: /\(Datanets.UnknownDatanet\)/ });
  test.equal(given.code, 0, given.error);
  const batch = JSON.parse(given.out) as { batch: number; records: number; blob: string };
  test.match(batch, { batch: 0, records: 2 });
  const blob = Buffer.from(await ledger.blobs.get(Buffer.from(batch.blob.slice(2), 'hex'))).toString();
  test.equal(blob, '{"prompt":"What is a roux?","response":"flour and fat"}\n{"text":"a whisk"}\n', 'canonical');

  const stolen = await run(['datanet', 'snapshot', '0', ...at, '--key', '//Bob']);
  test.match(stolen, { code: 1, error: /\(Datanets.NotCurator\)/ });
  const fixed = await run(['datanet', 'snapshot', '0', ...at, '--key', '//Alice']);
  test.match(fixed.out, /Snapshot 0 of Datanet 0: 2 records in 1 batches/);

  const [shown, account, order, claim, models, nobody] = await all(
    ['datanet', 'show', '0', ...at, '--json'],
    ['account', 'show', address, ...at, '--json'],
    ['model', 'order', '0', ...at, '--key', '//Alice', '--name', 'kitchen'],
    ['rewards', 'claim', ...at, '--key', '//Bob'],
    ['model', 'list', ...at, '--json'],
    ['model', 'list', '--node', 'ws://127.0.0.1:9'],
  );
  test.match(JSON.parse(shown.out), {
    admitted: 2,
    stake: `${(25n * OPEN) / 10n}`,
    batches: [{ contributor: address }],
  });
  const { free, held } = JSON.parse(account.out) as { free: string; held: string };
  test.ok(BigInt(held) > 2n * OPEN && BigInt(free) + BigInt(held) < 100n * OPEN, 'the stake is on hold, a fee is paid');
  test.match(order, { code: 1, error: /\(Models.UnknownBaseModel\)/ });
  test.match(claim, { code: 1, error: /\(Attribution.NothingToClaim\)/ });
  test.same(JSON.parse(models.out), { baseModels: [], orders: [], adapters: [] });
  test.match(nobody, { code: 1, error: /no node answers.*\(NO_NODE\)/ });
});

t.test('the words of the program itself', async (test) => {
  const [help, wrong] = await Promise.all([
    spawned('--help'),
    spawned('account', 'transfer', 'x', '1.2.3', '--key', '//A'),
  ]);
  for (const word of ['datanet', 'model', 'worker', 'gateway', 'chat', 'rewards', 'account', 'demo']) {
    test.match(help.out, new RegExp(`^  ${word} `, 'm'));
  }
  test.match(wrong, { code: 1, error: /an amount of OPEN/ });
});
