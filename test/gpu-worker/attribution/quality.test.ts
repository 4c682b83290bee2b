/** The short form of `npm run bench:attribution`: the same path, few retrainings; figures are the same on every machine. */
import { test } from 'tap';
import { QUICK, run, table } from '../../bench/attribution/quality.ts';

test('attribution against retraining, the short form', { timeout: 110_000 }, async (t) => {
  const { results, incomes, textOnly, payments } = await run(1n, QUICK, { few: true });
  const of = (name: string) => results.find(({ method }) => method.startsWith(name))!;
  t.comment(`\n${table(results)}`);
  t.comment(JSON.stringify({ incomes, textOnly }));
  const [full, float, int8] = [of('ours, uncompressed'), of('ours, float'), of('ours, int8')];
  t.ok(full.byContributor > 0.4, `coalitions: LDS ${full.byContributor}, chance is 0`);
  t.ok(int8.byContributor > 0.95 * full.byContributor, `${int8.byContributor} is left in int8`);
  t.ok(Math.abs(int8.byContributor - float.byContributor) < 0.01, 'int8 is as good as float');
  t.ok(int8.precision > 1 / QUICK.size.domains, `P@10 ${int8.precision}`);
  t.ok(incomes.copier < 0.05, `the copier earns ${incomes.copier} of an honest contributor's income`);
  t.ok(textOnly.copier > 0.2, `by texts alone it would be ${textOnly.copier}`);
  for (const shares of payments.shares) {
    const sum = shares.reduce((total, share) => total + share, 0);
    t.ok(sum > 0.999 && sum < 1 + 1e-9, `a pool is paid out: ${sum}`);
  }
});
