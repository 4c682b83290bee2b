/** What the journal does when it cannot be written to. */
import t from 'tap';
import { JournalError, WorkerJournal } from '../../gpu-worker/session/journal.ts';
import { temporaryDirectory } from '../main-job/support.ts';

t.test('a journal that cannot be written to says so once and for all', async (test) => {
  const directory = await temporaryDirectory(test);
  const journal = await WorkerJournal.open(directory);
  const verdict = { faulty: true, salt: new Uint8Array(32).fill(7) };
  await journal.keepVerdict(3, verdict);
  test.notOk(journal.broken.aborted);
  await journal.close();
  const refused = await journal.keepVerdict(4, verdict).catch((problem: unknown) => problem);
  test.match(refused, { code: 'WRITE_FAILED' });
  test.equal(journal.broken.reason, refused, 'whoever runs the worker hears of it');
  await test.rejects(journal.forgetVerdict(3), { code: 'WRITE_FAILED' }, 'nothing is written behind what failed');
  const again = await WorkerJournal.open(directory);
  test.same(await again.verdict(3), verdict, 'what was written before is there');
  test.equal(await again.verdict(4), undefined);
  await again.close();
  const full = new JournalError(directory, new Error('IO error: 000003.log: No space left on device'));
  test.equal(full.code, 'DISK_FULL');
  test.match(full.message, directory);
});
