/** `npm start` as a process of its own, and how its parts are kept running. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { keepRunning, type Listening } from '../../node/cli/child.ts';
import { Ledger } from '../../rpc/client/ledger.ts';
import { baseModels } from '../../rpc/client/models.ts';
import { store as inference } from '../../runtime/pallets/ledger/inference.ts';
import { until } from '../support/until.ts';

const MAIN = fileURLToPath(new URL('../../node/cli/openledger.mjs', import.meta.url));

t.test(
  'the development ledger: worker and gateway come up, and all of it stops',
  { timeout: 110_000 },
  async (test) => {
    const args = ['dev', '--rpc-port', '0', '--gateway-port', '0', '--block-time', '500'];
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    test.teardown(() => child.kill('SIGKILL'));
    let written = '';
    for (const stream of [child.stdout, child.stderr]) stream!.on('data', (chunk) => (written += String(chunk)));
    const exited = once(child, 'exit');
    const [{ at }] = (await once(child, 'message')) as [{ at: Listening }];
    test.match(at, { node: /^ws:\/\/127\.0\.0\.1:\d+$/, gateway: /^http:\/\/127\.0\.0\.1:\d+\/v1$/ });
    const models = (await (await fetch(`${at.gateway}/models`)).json()) as object;
    test.same(models, { object: 'list', data: [] });
    const ledger = await Ledger.connect(at.node!);
    await until('the worker registers its base model', async () => (await baseModels(ledger)).length > 0);
    const sessions = await Array.fromAsync(ledger.keys(inference.Sessions));
    test.equal(sessions.length, 1, 'the gateway has a session with a deposit');
    ledger.close();

    const stopping = Date.now();
    child.kill('SIGINT');
    const [code] = (await exited) as [number];
    test.equal(code, 0, written);
    test.comment(`stopped after ${Date.now() - stopping} ms`);
    test.ok(Date.now() - stopping < 30_000, 'in time even on a very busy machine');
    await test.rejects(fetch(`${at.gateway}/models`), 'nothing listens any longer');
    test.match(written, /worker: stopped/);
    test.match(written, /gateway: stopped/);
  },
);

t.test('a part that ends is started again, after longer and longer pauses, until it is told to stop', async (test) => {
  const stop = new AbortController();
  const told: string[] = [];
  await keepRunning(
    {
      name: 'version',
      args: ['--version'],
      log: (_, message) => {
        told.push(message);
        if (told.filter((line) => line.includes('started again')).length === 2) stop.abort();
      },
    },
    stop.signal,
  );
  test.same(
    told.filter((line) => line.includes('started again')),
    ['version ended with 0: started again in 1 s', 'version ended with 0: started again in 2 s'],
  );
  test.ok(
    told.some((line) => /^version: \d+\.\d+\.\d+$/.test(line)),
    'what it writes is told',
  );
});
