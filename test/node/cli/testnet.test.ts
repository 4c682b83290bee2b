/** `openledger testnet`: validators that find each other and finalize, a table that says so, and one end for all. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { standings } from '../../../node/cli/commands/testnet.ts';

const MAIN = fileURLToPath(new URL('../../../node/cli/openledger.mjs', import.meta.url));

t.test('two validators', { timeout: 110_000 }, async (test) => {
  const args = ['testnet', '--validators', '2', '--workers', '0', '--slot-duration', '1000', '--rpc-port', '0'];
  const child = spawn(process.execPath, [MAIN, ...args, '--port', '0', '--log', 'warn'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  test.teardown(() => child.kill('SIGKILL'));
  let output = '';
  const urls = new Set<string>();
  const bothFinal = new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk) => {
      output += chunk;
      const rows = [...output.matchAll(/(Alice|Bob) +│ running +│ +(\d+) │ +(\d+) │ +(-?\d+) │ +1 │.*(http:\S+)/g)];
      const final = rows.filter(([, , , finalized]) => Number(finalized) >= 2);
      for (const [, , , , , url] of final) urls.add(url!);
      if (new Set(final.map(([, name]) => name)).size === 2) resolve();
    });
    child.once('exit', (code) => reject(new Error(`it ended with ${code}: ${output}`)));
  });
  child.stderr.on('data', (chunk) => {
    output += chunk;
  });
  await bothFinal;
  test.equal(urls.size, 2);
  const from = performance.now();
  child.kill('SIGINT');
  const [code] = await once(child, 'exit');
  test.equal(code, 0);
  test.ok(performance.now() - from < 10_000, `all stopped in ${Math.round(performance.now() - from)} ms`);
  for (const url of urls) await test.rejects(fetch(url), 'nothing is left behind');
});

t.test('the table', (test) => {
  const parts = [
    { name: 'Alice', kind: 'validator', url: 'http://a' },
    { name: 'Bob', kind: 'validator', url: undefined },
    { name: 'worker 1', kind: 'worker', url: 'ws://a' },
  ] as const;
  const text = standings([...parts], [{ peers: 3, best: 12, finalized: 10, waiting: 7 }, undefined, undefined]);
  test.match(text, /Alice +│ running +│ +12 │ +10 │ +2 │ +3 │ +7 │ http:\/\/a/);
  test.match(text, /Bob +│ starting/);
  test.match(text, /worker 1 +│ running .* ws:\/\/a/);
  test.end();
});
