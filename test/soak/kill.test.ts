/** The short form of `npm run soak:kill`: a validator is killed four times and comes back each time with all that it had said. */
import t from 'tap';
import { soakKill } from './kill.ts';

t.test('killed at random moments', { timeout: 240_000 }, async (test) => {
  const lines: string[] = [];
  const options = { times: 4, validators: 2, slotMs: 400, accounts: 20, rate: 50 };
  const result = await soakKill({ ...options, say: (line) => lines.push(line) });
  test.same(result.faults, [], lines.join('\n'));
  test.equal(result.kills, 4);
  test.ok(result.killed.aroundWrites > 0, 'around writes');
  test.ok(result.finalized > 3, 'it finalized');
  test.ok(result.ownVotes > 0 && result.ownBlocks > 0, 'what others heard of it is in its database');
  test.ok(result.sent > 0, 'under load');
  test.ok(result.finalTransactions > 0, 'and transactions were seen in final blocks');
});
