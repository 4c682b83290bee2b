/** The short form of `npm run soak:workers`: a worker that is killed, a node that restarts, seven tasks. */
import t from 'tap';
import { soakWorkers } from './workers.ts';

t.test('tasks survive what goes wrong', { timeout: 290_000 }, async (test) => {
  const lines: string[] = [];
  const result = await soakWorkers({
    tasks: 7,
    engines: ['embedded'],
    kinds: ['worker', 'node'],
    seed: 4,
    slotMs: 500,
    patience: 240,
    say: (line) => lines.push(line),
  });
  test.same(result.wrong, [], lines.join('\n'));
  test.equal(result.orders, 1);
  test.equal(result.answers, 6);
  test.ok(result.faults.worker > 0 && result.faults.node > 0, 'of either kind');
  test.ok(result.workerStarts > 2, 'workers were started again');
});
