/** The short form of `npm run soak:hostile`: each attack at least once. */
import t from 'tap';
import { ATTACKS } from './attacks.ts';
import { soak } from './hostile.ts';

t.test('a crowd that does its worst', { timeout: 115_000 }, async (test) => {
  const report = await soak({ messages: 8_000, seed: 1n, crowd: 4 });
  test.ok(report.messages >= 8_000, `${report.messages} messages by ${report.identities} identities`);
  test.ok(report.identities + report.refused >= Object.keys(ATTACKS).length, 'every attack was tried');
  test.same(report.unbanned, {}, `${report.banned} of ${report.offenders} offenders are banned`);
  test.ok(report.offenders >= 5);
  test.equal(report.honestBanned, false);
  test.ok(report.finalized >= 3, `${report.finalized} blocks became final, at most ${report.longestGapMs} ms apart`);
  test.ok(report.memoryMb.most < 256, `${report.memoryMb.most} MiB more at the most`);
  test.ok(report.mostPeers <= 8, `${report.mostPeers} peers, one address range has 8 places`);
});
