/** The short form of `npm run sim:strategies`: with the parameters as shipped, no strategy is worth it. */
import t from 'tap';
import { parameters as attribution } from '../../runtime/pallets/ledger/attribution/store.ts';
import { AUDIT_ONE, auditLoad, finderPart, workSlash } from '../../runtime/primitives/attribution/stakes.ts';
import { auditCosts, play, STRATEGIES } from './strategies.ts';

t.test('strategies', (test) => {
  for (const [at, strategy] of STRATEGIES.entries()) {
    const { mean, error } = play(strategy, 250, 100 + at);
    test.ok(mean <= 2 * error, `${strategy.who} ${strategy.name}: ${mean.toFixed(3)} ± ${error.toFixed(3)} OPEN`);
  }
  const { paid, income } = auditCosts(100, 5);
  test.ok(paid < income, 'audits are paid of what the treasury has of the same fees');
  // The scales can tip: what is as cheap as it was before audits went by value would be worth it.
  const cheap = { name: 'a cheat that is caught twice in a hundred times', who: 'a worker' };
  const once = play({ ...cheap, play: (chance) => (chance() < 0.02 ? -500 : 100) }, 250, 1);
  test.ok(once.mean > 2 * once.error);
  test.end();
});

t.test('by the rule: the expected loss exceeds the gain for every value and every slash that can be set', (test) => {
  /** Part of the audits of a cheat that end with a strike, if a third of the auditors collude (see the simulation). */
  const found = 0.6;
  const [min, max] = [10n ** 18n, 10n ** 24n];
  for (const slash of [min, attribution.initial.slash, max]) {
    for (const finderReward of [attribution.initial.finderReward, 250_000_000]) {
      for (let value = 10n ** 12n; value < 10n ** 26n; value *= 10n) {
        const load = Number(auditLoad(value, slash, 0)) / Number(AUDIT_ONE);
        const struck = found * (load >= 1 ? 1 : 1 - Math.exp(-load));
        const lost = Number(workSlash(slash, value) - finderPart(workSlash(slash, value), finderReward));
        const gain = (1 - struck) * Number(value) - struck * lost;
        // Next to nothing can be had where a batch is worth less than the smallest load: a billionth of a slash.
        test.ok(gain <= Number(slash) / 1e9, `${value} of ${slash}: ${gain}`);
      }
    }
  }
  test.end();
});
