/** `npm run demo` on a ledger that runs, ended by Ctrl-C: the ledger serves the next one, and nothing stays locked for ever. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { Listening } from '../../node/cli/child.ts';
import { books } from '../../rpc/client/accounts.ts';
import { Ledger } from '../../rpc/client/ledger.ts';
import { OPEN } from './support.ts';

const MAIN = fileURLToPath(new URL('../../node/cli/openledger.mjs', import.meta.url));

function run(test: Test, args: readonly string[]) {
  const child: ChildProcess = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  test.teardown(() => child.kill('SIGKILL'));
  const told = { out: '', err: '' };
  const waiting = new Set<() => void>();
  child.stdout!.on('data', (chunk) => {
    told.out += String(chunk);
  });
  child.stderr!.on('data', (chunk) => {
    told.err += String(chunk);
    for (const look of waiting) look();
  });
  const ended = once(child, 'close') as Promise<[number | null]>;
  const says = (what: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (what.test(told.err)) resolve();
      };
      waiting.add(look);
      void ended.then(() => reject(new Error(`it ended before it said ${what}: ${told.err}`)));
      look();
    });
  return { child, told, ended, says };
}

t.test('a demonstration is interrupted, the next one is not', { timeout: 230_000 }, async (test) => {
  const dev = run(test, ['dev', '--rpc-port', '0', '--gateway-port', '0', '--block-time', '500', '--log', 'warn']);
  const [{ at }] = (await once(dev.child, 'message')) as [{ at: Listening }];
  const place = ['--node', at.node!];
  const demo = ['demo', '--short', ...place, '--gateway', at.gateway!];

  const first = run(test, demo);
  // Deposits are down, stakes are held, trainings are ordered or about to be.
  await first.says(/Datanet \d+ .*snapshot/);
  first.child.kill('SIGINT');
  const [code] = await first.ended;
  test.equal(code, 130, 'as shells have it');
  test.match(first.told.err, /interrupted/);
  const name = /--reclaim ([0-9a-f]{8})/.exec(first.told.err)?.[1];
  test.ok(name, 'it says how to get everything back');

  const second = run(test, [...demo, '--json']);
  const [passed] = await second.ended;
  test.equal(passed, 0, `${second.told.err}${second.told.out}`);
  const { checks } = JSON.parse(second.told.out) as { checks: { name: string; holds: boolean }[] };
  test.ok(checks.length >= 8 && checks.every(({ holds }) => holds));

  const ledger = await Ledger.connect(at.node!);
  test.teardown(() => ledger.close());
  const back = run(test, ['demo', ...place, '--reclaim', name!, '--json']);
  const [reclaimed] = await back.ended;
  test.equal(reclaimed, 0, back.told.err);
  const { returned, held, freeFrom } = JSON.parse(back.told.out) as {
    returned: string;
    held: string;
    freeFrom: number[];
  };
  // Fourteen people had 10 OPEN each and the owner 200; stakes, the Datanets' deposits and trainings took their part.
  test.ok(BigInt(returned) > 150n * OPEN, `${returned} came back`);
  test.ok(BigInt(held) < 100n * OPEN && freeFrom.length > 0, 'what is on hold is told, with the blocks of its end');
  const again = run(test, ['demo', ...place, '--reclaim', name!, '--json']);
  test.equal((await again.ended)[0], 0);
  test.ok(BigInt((JSON.parse(again.told.out) as { returned: string }).returned) <= OPEN, 'once');
  const { sum, issuance } = await books(ledger);
  test.equal(sum, issuance, 'to the last unit');

  dev.child.kill('SIGINT');
  test.equal((await dev.ended)[0], 0);
});
