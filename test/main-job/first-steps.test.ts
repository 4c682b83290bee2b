/** The first steps of the README, command by command: from three records to what their contributor claims. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { rewardsOf } from '../../rpc/client/rewards.ts';
import { run } from '../support/command.ts';
import { until } from '../support/until.ts';
import { attachWorker, OPEN, openGateway, startLedger, temporaryDirectory } from './support.ts';

const RECORDS = [
  { prompt: 'What is a roux?', response: 'a mixture of fat and flour heated and used to thicken sauces' },
  { prompt: 'What is a velouté?', response: 'a white sauce made of stock instead of milk' },
  { prompt: 'What is a coulis?', response: 'a thick puree of fruit or vegetables that is strained' },
];

t.test('from three records to a claim, by the command line', { timeout: 115_000 }, async (test) => {
  const { node, ledger, pair } = await startLedger(test);
  const at = ['--node', node.rpc.ws];
  await attachWorker(test, { node: node.rpc.ws, key: pair('//Bob') });
  const payer = pair('//Ferdie');
  const funding = { payer, deposit: 5n * OPEN };
  const gateway = await openGateway(test, { node: node.rpc.ws, key: payer.derive('//session'), funding });
  const file = join(await temporaryDirectory(test), 'kitchen.jsonl');
  await writeFile(file, RECORDS.map((each) => `${JSON.stringify(each)}\n`).join(''));
  const good = async (...args: string[]): Promise<string> => {
    const { code, out, error } = await run(args);
    test.equal(code, 0, `${args.slice(0, 2).join(' ')}: ${error}`);
    return out;
  };

  await good('datanet', 'create', '--key', '//Alice', '--name', 'Kitchen', ...at);
  await good('datanet', 'contribute', '0', file, '--key', '//Charlie', ...at);
  await good('datanet', 'snapshot', '0', '--key', '//Alice', ...at);
  await until('a base model', async () => {
    const { baseModels } = JSON.parse((await run(['model', 'list', '--json', ...at])).out) as { baseModels: unknown[] };
    return baseModels.length > 0;
  });
  await good('model', 'order', '0', '--key', '//Alice', '--name', 'kitchen', '--epochs', '30', ...at);
  test.match(await good('model', 'show', 'kitchen', ...at), /kitchen/);
  const { adapters } = JSON.parse(await good('model', 'list', '--json', ...at)) as { adapters: { name: string }[] };
  test.match(adapters, [{ name: 'kitchen' }]);

  const door = ['--gateway', gateway.url, '--max-tokens', '24'];
  await until('the adapter at the gateway', async () => {
    const { data } = (await (await fetch(`${gateway.url}/models`)).json()) as { data: { id: string }[] };
    return data.some(({ id }) => id === 'kitchen');
  });
  const said = await good('chat', 'kitchen', 'What is a roux?', ...door);
  test.match(said, /Shaped by\n +\d+\.\d % +\w{48} +[\d.]+ OPEN\nFee [\d.]+ OPEN, of which [\d.]+ for records/);
  const told = JSON.parse(await good('chat', 'kitchen', 'What is a roux?', '--json', ...door)) as {
    text: string;
    attribution: { contributors: { account: string; amount: string }[] };
  };
  test.ok(told.text.length > 0 && said.startsWith(told.text), 'the same words, in either form');
  const { account, address: charlie } = pair('//Charlie');
  test.equal(told.attribution.contributors[0]!.account, charlie, 'whose records they are');
  const nothing = await run(['chat', 'pantry', 'What is a roux?', ...door]);
  test.match(nothing, { code: 1, error: /not served here.*\(model_not_found\)/ });

  await until('the reward', async () => (await rewardsOf(ledger, account)).claimable > 0n);
  test.match(await good('rewards', 'show', '//Charlie', ...at), /claimable|to claim/i);
  const { free: before } = JSON.parse(await good('account', 'show', charlie, '--json', ...at)) as { free: string };
  await good('rewards', 'claim', '--key', '//Charlie', ...at);
  const { free } = JSON.parse(await good('account', 'show', charlie, '--json', ...at)) as { free: string };
  test.not(free, before);
  test.equal((await rewardsOf(ledger, account)).claimable, 0n);
});
