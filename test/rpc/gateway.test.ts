/** The gateway through the unmodified `openai` package: answers with their attribution, money, and every refusal. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import OpenAI, { APIError } from 'openai';
import t, { type Test } from 'tap';
import { awaitAdapter } from '../../rpc/client/models.ts';
import { claim, pendingBatches, rewardsOf } from '../../rpc/client/rewards.ts';
import { sessionOf } from '../../rpc/client/sessions.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { featureFile, rowLeaf } from '../../runtime/primitives/attribution/features.ts';
import { verifyLeaf } from '../../runtime/primitives/attribution/merkle.ts';
import { inferenceReceipt, signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { sumFile, sumLeaf } from '../../runtime/primitives/attribution/sums.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { balanced, order, type World, world } from '../gpu-worker/ledger-world.ts';
import { attachWorker, hashing, listener, OPEN, openGateway } from '../main-job/support.ts';
import { openFor } from '../support/sessions.ts';
import { until } from '../support/until.ts';

const CLI = fileURLToPath(new URL('../../node/cli/openledger.mjs', import.meta.url));

interface Attribution {
  readonly receipt: string;
  readonly id: string;
  readonly worker: string;
  readonly fee: string;
  readonly pool: string;
  readonly contributors: readonly { readonly account: string; readonly share: number; readonly amount: string }[];
  readonly spans: readonly { readonly start: number; readonly length: number }[];
}
const attributionOf = (answer: unknown): Attribution => (answer as { attribution: Attribution }).attribution;
const receiptOf = (answer: unknown) => decode(signedInferenceReceipt, fromHex(attributionOf(answer).receipt)).payload;
/** Status and code of what the package throws. */
const refusal = async (body: Promise<unknown>): Promise<string> => {
  try {
    await body;
    return 'no error';
  } catch (problem) {
    if (!(problem instanceof APIError)) throw problem;
    return `${problem.status} ${problem.code} ${problem.type}`;
  }
};

t.test('the openai package', { timeout: 115_000 }, async (test) => {
  const chain = await world(test);
  const { ledger, node, pair, contributors } = chain;
  const url = node.rpc.ws;
  const worker = pair('//Bob');
  await attachWorker(test, { node: url, key: worker, settleMs: 3_000 });
  await awaitAdapter(ledger, await order(chain, 'things', { steps: 40 }));

  const payer = pair('//Eve');
  const key = payer.derive('//session');
  const heard = listener('gateway');
  const open = async (deposit: bigint) => {
    const session = await openFor(ledger, payer, key.publicKey, worker, deposit);
    const gateway = await openGateway(test, { node: url, key, session, apiKey: 'secret', log: heard.log });
    return { session, gateway };
  };
  const { session, gateway } = await open(20n * OPEN);
  const settings = { baseURL: gateway.url, apiKey: 'secret', maxRetries: 0 };
  const client = new OpenAI(settings);
  const model = 'things';
  await until('the adapter at the gateway', async () => {
    for await (const each of client.models.list()) if (each.id === model) return each;
    return undefined;
  });
  test.equal((await client.models.retrieve(model)).owned_by, 'openledger');
  const messages = [{ role: 'user' as const, content: 'What is slate?' }];
  const greedy = { model, max_tokens: 16, temperature: 0 };

  const whole = await client.chat.completions.create({ ...greedy, messages });
  const [choice] = whole.choices;
  test.ok(choice!.message.content!.length > 0 && choice!.message.role === 'assistant');
  test.match(choice!.finish_reason, /^(stop|length)$/);
  const receipt = receiptOf(whole);
  test.equal(attributionOf(whole).id, toHex(hashOf(hashing, inferenceReceipt, receipt)));
  test.equal(attributionOf(whole).worker, worker.address);
  test.equal(whole.usage!.prompt_tokens, receipt.tokensIn);
  test.equal(whole.usage!.completion_tokens, receipt.tokensOut);
  const paid = attributionOf(whole).contributors.reduce((sum, { amount }) => sum + BigInt(amount), 0n);
  test.equal(paid + receipt.remainder, receipt.pool, 'shares and remainder are the pool');
  test.same(await ledger.rpc.call('attribution_verify', attributionOf(whole).receipt), { valid: true, fault: null });

  await explained(test, ledger, whole);
  await verified(test, url, attributionOf(whole).receipt);

  const said: string[] = [];
  let last: unknown;
  let used: OpenAI.CompletionUsage | null | undefined;
  const stream = await client.chat.completions.create({
    ...{ ...greedy, messages, stream: true, stream_options: { include_usage: true } },
  });
  for await (const part of stream) {
    said.push(part.choices[0]?.delta.content ?? '');
    if (part.choices[0]?.finish_reason) last = part;
    used = part.usage ?? used;
  }
  test.equal(said.join(''), choice!.message.content, 'the same words in pieces');
  test.ok(said.filter((each) => each !== '').length > 1, 'piece by piece');
  test.equal(used?.completion_tokens, receipt.tokensOut);
  test.ok(BigInt(attributionOf(last).fee) > 0n, 'the last piece has the attribution');

  const prompt = 'The otter lives';
  const text = await client.completions.create({ ...greedy, prompt });
  const pieces: string[] = [];
  let end: unknown;
  for await (const part of await client.completions.create({ ...greedy, prompt, stream: true })) {
    pieces.push(part.choices[0]!.text);
    if (part.choices[0]!.finish_reason) end = part;
  }
  test.equal(pieces.join(''), text.choices[0]!.text);
  test.same(receiptOf(text).outputHash, receiptOf(end).outputHash, 'the same answer');
  const content = choice!.message.content!;
  const stopped = await client.chat.completions.create({ ...greedy, messages, stop: [content.trim().slice(0, 3)] });
  test.ok(stopped.choices[0]!.message.content!.length < content.length, 'a stop sequence');
  const seeded = { model, prompt, max_tokens: 8, temperature: 1.5, top_p: 0.95, seed: 7 };
  const twice = await Promise.all([client.completions.create(seeded), client.completions.create(seeded)]);
  test.equal(twice[0].choices[0]!.text, twice[1].choices[0]!.text, 'a seed');
  const many = await Promise.all(
    Array.from({ length: 6 }, (_, i) => client.completions.create({ ...greedy, prompt: `Stone number ${i}` })),
  );
  const nonces = many.map((each) => receiptOf(each).voucher.payload.nonce);
  test.equal(new Set(nonces).size, 6, 'answered at the same time, each by its own voucher');

  const create = (change: object, by = client) =>
    refusal(by.chat.completions.create({ ...greedy, messages, ...change }) as Promise<unknown>);
  test.equal(await create({ model: 'nothing' }), '404 model_not_found invalid_request_error');
  test.equal(await refusal(client.models.retrieve('nothing')), '404 model_not_found invalid_request_error');
  const stranger = new OpenAI({ ...settings, apiKey: 'guessed' });
  test.equal(await create({}, stranger), '401 invalid_api_key invalid_request_error');
  test.equal(await create({ temperature: 9 }), '400 invalid_value invalid_request_error');
  test.equal(await create({ messages: [] }), '400 invalid_value invalid_request_error');
  test.equal(await create({ messages: [{ role: 'tool', content: 'x' }] }), '400 invalid_value invalid_request_error');
  test.equal(await create({ n: 2 }), '400 invalid_value invalid_request_error');
  const long = 'otter and heron and newt '.repeat(200);
  test.equal(
    await create({ messages: [{ role: 'user', content: long }] }),
    '400 context_length_exceeded invalid_request_error',
  );
  const raw = await fetch(`${gateway.url}/chat/completions`, {
    method: 'POST',
    headers: { authorization: 'Bearer secret', 'content-type': 'application/json' },
    body: '{"model": "things",',
  });
  const { error } = (await raw.json()) as { error: { code: string } };
  test.equal(`${raw.status} ${error.code}`, '400 invalid_json');
  const nowhere = await fetch(`${gateway.url}/embeddings`, { headers: { authorization: 'Bearer secret' } });
  test.equal(nowhere.status, 404);

  // A caller that goes: the answer ends, and what was said until then is paid.
  const gone = new AbortController();
  const answering = await client.chat.completions.create(
    { model, messages, max_tokens: 400, temperature: 2, stream: true },
    { signal: gone.signal },
  );
  for await (const part of answering) {
    if ((part.choices[0]?.delta.content ?? '') !== '') gone.abort();
  }
  test.ok(gone.signal.aborted);
  const after = await client.chat.completions.create({ ...greedy, messages });
  test.equal(after.choices[0]!.message.content, choice!.message.content, 'the next one is served');

  const small = await open(OPEN);
  const poor = new OpenAI({ ...settings, baseURL: small.gateway.url });
  const asked = { model, prompt, max_tokens: 4_000, temperature: 0 };
  const outcomes = await Promise.all([1, 2, 3].map(() => refusal(poor.completions.create(asked))));
  test.same(
    outcomes,
    ['no error', 'no error', '402 insufficient_quota insufficient_quota'],
    'the deposit covers what two of them may cost',
  );
  test.equal(await refusal(poor.completions.create(asked)), 'no error', 'they cost less');

  // What was answered is settled, what is settled is paid, and nothing is lost on the way.
  await until('settlement', async () =>
    (await sessionOf(ledger, session))!.settled > 0n && (await pendingBatches(ledger)).length === 0 ? true : undefined,
  );
  const earned = await Promise.all(contributors.map(({ account }) => rewardsOf(ledger, account)));
  test.ok(earned.some(({ claimable }) => claimable > 0n));
  for (const [at, { claimable }] of earned.entries()) {
    if (claimable > 0n) test.equal(await claim(ledger, contributors[at]!), claimable);
  }
  test.ok(await balanced(ledger), 'to the last unit');
  test.same(heard.lines, [], 'no failure of the gateway’s own');
});

interface Proof {
  readonly first: number;
  readonly siblings: readonly string[];
}
interface Explanation {
  readonly shares: readonly { readonly contributor: string; readonly entry: number; readonly proof: Proof }[];
  readonly records: readonly {
    readonly index: number;
    readonly record: string;
    readonly score: string;
    readonly proof: Proof;
  }[];
  readonly spans: readonly {
    readonly start: number;
    readonly matches: readonly { readonly record: number; readonly offset: number }[];
  }[];
}

/** Contributors, records and spans, each proof checked against the roots on the chain. */
async function explained(test: Test, ledger: World['ledger'], answer: unknown): Promise<void> {
  const receipt = receiptOf(answer);
  const told = await ledger.rpc.call<Explanation>('attribution_explain', attributionOf(answer).receipt, 5);
  const { adapter } = receipt.voucher.payload;
  const { features } = (await ledger.read(models.store.Receipts, adapter))!.payload;
  const { rows } = decode(featureFile, await ledger.blobs.get(features.featureFile));
  const { entries } = decode(sumFile, await ledger.blobs.get(features.sumFile));
  const proofOf = ({ first, siblings }: Proof) => ({ first, siblings: siblings.map((each) => asHash(fromHex(each))) });
  test.same(
    told.shares.map(({ contributor }) => contributor),
    receipt.shares.map(({ contributor }) => toHex(contributor)),
  );
  for (const { entry, proof } of told.shares) {
    const leaf = sumLeaf(hashing, entries[entry]!);
    test.ok(
      verifyLeaf(hashing, 'sums', features.sumRoot, features.sumEntries, leaf, proofOf(proof)),
      'a sum is proven',
    );
  }
  test.equal(told.records.length, 5);
  for (const [at, { index, record, score, proof }] of told.records.entries()) {
    const row = rows[index]!;
    test.equal(record, toHex(row.record));
    test.ok(
      verifyLeaf(hashing, 'features', features.featureRoot, rows.length, rowLeaf(hashing, row), proofOf(proof)),
      'a row is proven',
    );
    if (at > 0) test.ok(BigInt(told.records[at - 1]!.score) >= BigInt(score), 'best first');
  }
  test.same(
    told.spans.map(({ start, matches }) => [start, matches.map(({ record, offset }) => [record, offset])]),
    receipt.spans.map(({ start, matches }) => [start, matches.map(({ record, offset }) => [record, offset])]),
  );
}

/** The small verifier as people run it: its verdict, and its exit code. */
async function verified(test: Test, node: string, receipt: string): Promise<void> {
  const run = (input: string) =>
    new Promise<{ code: number | null; out: string; err: string }>((resolve) => {
      const child = spawn(process.execPath, [CLI, 'verify', '-', '--json', '--node', node]);
      let [out, err] = ['', ''];
      child.stdout.on('data', (chunk) => {
        out += chunk;
      });
      child.stderr.on('data', (chunk) => {
        err += chunk;
      });
      child.on('close', (code) => resolve({ code, out, err }));
      child.stdin.end(input);
    });
  const { payload, signature } = decode(signedInferenceReceipt, fromHex(receipt));
  test.ok(payload.shares.length > 0, 'the answer has an author');
  const raised = payload.shares.map((each, at) => (at === 0 ? { ...each, influence: each.influence + 1n } : each));
  const forged = toHex(encode(signedInferenceReceipt, { payload: { ...payload, shares: raised }, signature }));
  const [good, bad, none] = await Promise.all([run(JSON.stringify({ receipt })), run(forged), run('0x00')]);
  const verdict = JSON.parse(good.out) as { valid: boolean; contributors: unknown[]; records: unknown[] };
  test.equal(good.code, 0, good.err);
  test.equal(verdict.valid, true);
  test.equal(verdict.contributors.length, payload.shares.length);
  test.equal(verdict.records.length, 10);
  test.equal(bad.code, 2, bad.err);
  test.equal((JSON.parse(bad.out) as { fault: string }).fault, 'BAD_SIGNATURE');
  test.equal(none.code, 1);
  test.match(none.err, /BAD_RECEIPT_INPUT/);
}
