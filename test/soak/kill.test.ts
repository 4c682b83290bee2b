/** The short form of `npm run soak:kill`: a node is killed five times and comes back each time with all that it had said. */
import t from 'tap';
import { soakKill } from './kill.ts';

t.test('killed at random moments', { timeout: 110_000 }, async (test) => {
  const lines: string[] = [];
  const options = { times: 5, validators: 1, slotMs: 300, accounts: 20, rate: 100 };
  const result = await soakKill({ ...options, say: (line) => lines.push(line) });
  test.same(result.faults, [], lines.join('\n'));
  test.equal(result.kills, 5);
  test.ok(result.finalized > 3, 'it finalized');
  test.ok(result.sent > 0, 'under load');
  test.ok(result.finalTransactions > 0, 'and transactions were seen in final blocks');
});
