/** The demonstration in its short form, against a ledger of this process: every stage, every sum. */
import t from 'tap';
import { newRun } from '../../node/cli/demo/accounts.ts';
import { runLoop, SHORT } from '../../node/cli/demo/loop.ts';
import { demoDomains } from '../../node/cli/demo/records.ts';
import { checks, printed, standings } from '../../node/cli/demo/report.ts';
import { attachWorker, hashing, OPEN, openGateway, startLedger } from './support.ts';

t.test('records of the demonstration', async (test) => {
  const domains = demoDomains(40, 24);
  const people = domains.flatMap(({ contributors }) => contributors);
  test.equal(people.length, 14);
  test.equal(people.filter(({ part }) => part === 'honest').length, 12);
  for (const { contributors, held } of domains) {
    const honest = contributors.filter(({ part }) => part === 'honest').flatMap(({ records }) => records);
    const prompts = new Set([...honest, ...held].map(({ prompt }) => prompt));
    test.equal(prompts.size, 4 * 40 + 24, 'nobody has another one’s records, nobody those that are kept back');
  }
  const [original, , , , copier] = domains[0]!.contributors;
  test.equal(copier!.part, 'copier');
  test.same(
    copier!.records.map(({ prompt }) => prompt).toSorted(),
    original!.records.map(({ prompt }) => prompt).toSorted(),
  );
});

t.test('the loop from records to claims, every check', { timeout: 280_000 }, async (test) => {
  const domains = demoDomains(SHORT.records, SHORT.held);
  const { node, ledger, pair } = await startLedger(test);
  await attachWorker(test, { node: node.rpc.ws, key: pair('//Bob') });
  const payer = pair('//Ferdie');
  const gateway = await openGateway(test, {
    node: node.rpc.ws,
    key: payer.derive('//session'),
    funding: { payer, deposit: 10n * OPEN },
  });
  const told: string[] = [];
  const outcome = await runLoop({
    ledger,
    domains,
    funder: pair('//Alice'),
    run: newRun(),
    size: SHORT,
    hashing,
    async gateway(model) {
      for (;;) {
        const { data } = (await (await fetch(`${gateway.url}/models`)).json()) as { data: { id: string }[] };
        if (data.some(({ id }) => id === model)) return gateway.url;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    },
    tell: (words) => told.push(words),
  });
  const lines = standings(outcome);
  const results = checks(outcome, lines, true);
  for (const { name, holds, detail } of results) test.ok(holds, `${name}: ${detail}`);
  test.ok(results.length >= 8);
  test.equal(outcome.answers.length, 30);
  const table = printed(outcome, lines, results);
  for (const { name } of lines) test.ok(table.includes(name), `${name} is in the table`);
  test.ok(told.some((words) => /answers, each with a receipt/.test(words)));

  // The checks can fail: a unit too much, a receipt that does not hold, a copier that earns.
  const failed = (changed: typeof outcome): string[] =>
    checks(changed, standings(changed), true)
      .filter(({ holds }) => !holds)
      .map(({ name }) => name);
  const copier = outcome.people.find(({ part }) => part === 'copier')!.pair.address;
  const rich = Math.max(...[...outcome.earned.values()].map(Number));
  test.match(failed({ ...outcome, after: { ...outcome.after, sum: outcome.after.sum + 1n } }), [/total issuance/]);
  test.match(failed({ ...outcome, answers: outcome.answers.map((each) => ({ ...each, fault: 'FEE' })) }), [/receipt/]);
  test.match(failed({ ...outcome, earned: new Map(outcome.earned).set(copier, BigInt(rich)) }), [
    /copier/,
    /to the last unit/,
    /claim/,
  ]);
});
