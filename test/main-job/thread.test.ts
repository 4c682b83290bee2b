/** The thinnest thread through the whole: records in, an attributed answer out, its contributors paid. */
import t from 'tap';
import { books } from '../../rpc/client/accounts.ts';
import { prepareBatch } from '../../rpc/client/batches.ts';
import { contribute, openDatanet, takeSnapshot } from '../../rpc/client/datanets.ts';
import { awaitAdapter, baseModels, orderTraining } from '../../rpc/client/models.ts';
import { claim, pendingBatches, rewardsOf } from '../../rpc/client/rewards.ts';
import { trainingConfigOf } from '../../rpc/client/training-config.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { JSON_TYPE } from '../gpu-worker/asking.ts';
import { until } from '../support/until.ts';
import { attachWorker, hashing, OPEN, openGateway, startLedger } from './support.ts';

const records = (words: readonly string[], of: string) =>
  words.map((word, i) => JSON.stringify({ prompt: `What is a ${word}?`, response: `the ${i}th ${word} of ${of}` }));

t.test('from a record to its reward', { timeout: 100_000 }, async (test) => {
  const { node, ledger, pair } = await startLedger(test);
  const url = node.rpc.ws;
  const before = await books(ledger);
  test.equal(before.sum, before.issuance);
  await attachWorker(test, { node: url, key: pair('//Bob') });

  const [owner, first, second] = [pair('//Alice'), pair('//Charlie'), pair('//Dave')];
  const datanet = await openDatanet(ledger, owner, {
    name: 'Fruit',
    description: 'Fruit of two gardens.',
    schema: 'prompt and response',
    licence: 'CC-BY-4.0',
    admission: 'Open',
    stake: OPEN,
    duplicateOverlap: 0.8,
    accessPrice: OPEN,
  });
  const batches = await Promise.all([
    contribute(
      ledger,
      first,
      datanet,
      prepareBatch(hashing, records(['pear', 'fig', 'plum', 'quince'], 'north').join('\n')),
    ),
    contribute(
      ledger,
      second,
      datanet,
      prepareBatch(hashing, records(['kiwi', 'lime', 'date', 'olive'], 'south').join('\n')),
    ),
  ]);
  test.same(batches.toSorted(), [0, 1]);
  const version = await takeSnapshot(ledger, owner, datanet);
  const model = await until('a base model', async () => (await baseModels(ledger))[0]);
  const order = await orderTraining(ledger, owner, {
    name: 'fruit-1',
    datanet,
    version,
    baseModel: model.id,
    config: trainingConfigOf({ steps: 40, k: 8, sequenceLength: 48 }),
    seed: 1n,
    budget: 10n * OPEN,
    markup: 0.1,
    price: { input: OPEN / 10_000n, output: OPEN / 1_000n },
  });
  const heard: string[] = [];
  const adapter = await awaitAdapter(ledger, order, {
    report: ({ phase }) => heard.push(phase),
    progress: ({ type }) => heard.push(type),
  });
  test.equal(adapter, 0);
  for (const each of ['training', 'audit', 'live']) test.ok(heard.includes(each), `heard of ${each}`);

  const payer = pair('//Eve');
  const gateway = await openGateway(test, {
    node: url,
    key: payer.derive('//session'),
    funding: { payer, deposit: 5n * OPEN },
  });
  await until('the adapter at the gateway', async () => {
    const { data } = (await (await fetch(`${gateway.url}/models`)).json()) as { data: { id: string }[] };
    return data.find(({ id }) => id === 'fruit-1');
  });
  const response = await fetch(`${gateway.url}/chat/completions`, {
    method: 'POST',
    headers: JSON_TYPE,
    body: JSON.stringify({
      model: 'fruit-1',
      messages: [{ role: 'user', content: 'What is a pear?' }],
      max_tokens: 24,
    }),
  });
  const answer = (await response.json()) as {
    choices: { message: { content: string } }[];
    attribution: { receipt: string; request: string; contributors: { account: string; amount: string }[] };
  };
  test.equal(response.status, 200, JSON.stringify(answer).slice(0, 300));
  test.ok(answer.choices[0]!.message.content.length > 0);
  const { receipt, request, contributors } = answer.attribution;
  test.same(await ledger.rpc.call('attribution_verify', receipt), { valid: true, fault: null });

  // The payer cannot deny the request either: the receipt's voucher bears the session key's signature on all of it.
  const held = (asked: string) => ledger.rpc.call('attribution_verify', receipt, asked);
  test.same(await held(request), { valid: true, fault: null });
  const terms = decode(requestTerms, fromHex(request));
  test.equal(terms.maxTokens, 24);
  const denied = toHex(encode(requestTerms, { ...terms, temperature: terms.temperature + 1 }));
  test.same(await held(denied), { valid: false, fault: 'OTHER_REQUEST' });
  const { payload, signature } = decode(signedInferenceReceipt, fromHex(receipt));
  const { voucher: signed } = payload;
  const swapped = {
    ...signed,
    payload: { ...signed.payload, request: hashOf(hashing, requestTerms, terms).toReversed() },
  };
  const forged = { payload: { ...payload, voucher: swapped as typeof signed }, signature };
  test.same(
    await ledger.rpc.call('attribution_verify', toHex(encode(signedInferenceReceipt, forged))),
    { valid: false, fault: 'BAD_VOUCHER_SIGNATURE' },
    'nor can a worker put another one into the voucher',
  );

  const amounts = new Map(contributors.map(({ account, amount }) => [account, BigInt(amount)]));
  const paid = amounts.get(first.address)!;
  test.ok(paid > (amounts.get(second.address) ?? 0n), 'most goes to the one whose record it is');
  const reward = await until('the reward', async () => {
    const { earned, claimable } = await rewardsOf(ledger, first.account);
    return earned > 0n ? { earned, claimable } : undefined;
  });
  test.equal(reward.earned, paid, 'the chain pays what the receipt says');
  test.equal(await claim(ledger, first), reward.earned);
  await test.rejects(claim(ledger, first), { code: 'Attribution.NothingToClaim' });
  test.same(await pendingBatches(ledger), []);
  const after = await books(ledger);
  test.equal(after.sum, after.issuance, 'to the last unit');
});
