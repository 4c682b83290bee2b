/** Workers, receipts and vouchers that are not what they should be, at the node: each has its own code, none is passed on. */
import t from 'tap';
import { embeddedEngine } from '../../gpu-worker/engines/embedded/engine.ts';
import { ServedAdapter } from '../../gpu-worker/serving/served-adapter.ts';
import { NodeLink } from '../../gpu-worker/session/link.ts';
import { adapterMaterial } from '../../gpu-worker/session/materials.ts';
import { SHIPPED_MODEL } from '../../gpu-worker/start.ts';
import { JsonRpcClient, JsonRpcError } from '../../rpc/client/json-rpc.ts';
import { awaitAdapter } from '../../rpc/client/models.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import {
  attachment,
  type GenerationRequest,
  generationRequest,
} from '../../runtime/primitives/attribution/messages.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  signedInferenceReceipt,
  type Voucher,
  voucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { DEFAULT_RULES, receiptRules } from '../../runtime/primitives/attribution/split.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { asAccountId, multiSignature } from '../../runtime/primitives/types.ts';
import { order, PRICE, world } from '../gpu-worker/ledger-world.ts';
import { attachWorker, hashing, OPEN } from '../main-job/support.ts';
import { openFor } from '../support/sessions.ts';
import { until } from '../support/until.ts';

type Signer = { sign(data: Uint8Array): Uint8Array };
const signed = (by: Signer, digest: Uint8Array) => ({ type: 'Sr25519' as const, value: by.sign(digest) });
const codeOf = async (body: Promise<unknown>): Promise<unknown> => {
  try {
    await body;
    return 'no error';
  } catch (problem) {
    if (!(problem instanceof JsonRpcError)) throw problem;
    return problem.data;
  }
};

const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);

t.test('what a node refuses', { timeout: 115_000 }, async (test) => {
  const chain = await world(test);
  const { ledger, node, pair } = chain;
  const url = node.rpc.ws;
  const worker = pair('//Bob');
  const honest = await attachWorker(test, { node: url, key: worker });
  const adapter = (await awaitAdapter(ledger, await order(chain, 'things'))) as AdapterId;
  const { account } = worker;
  const serving = () => ledger.read(inference.store.Serving, [adapter, worker.account]);
  const { lease } = await until('the serving lease', serving);
  await honest.stop();

  const payer = pair('//Eve');
  const session = await openFor(ledger, payer, payer.publicKey, worker, 5n * OPEN);
  const engine = await embeddedEngine();
  test.teardown(() => engine.close());
  const model = await engine.load(SHIPPED_MODEL);
  const link = new NodeLink({ node: url, key: worker, hashing, log: () => {} });
  const stop = new AbortController();
  const connected = link.run(
    (_, over) => new Promise((resolve) => over.addEventListener('abort', () => resolve())),
    stop.signal,
  );
  await link.ready(stop.signal);
  const served = await ServedAdapter.open(hashing, model, await adapterMaterial(link, adapter));
  stop.abort();
  await connected;

  // 1. Who attaches proves its key, by a challenge of the connection's own, once.
  const line = await JsonRpcClient.connect(url);
  test.teardown(() => line.close());
  type Challenge = { readonly challenge: string; readonly node: string };
  const prove = async ({ challenge, node: key }: Challenge, by: Signer = worker, at = Date.now()) => {
    const digest = hashOf(hashing, attachment, {
      chain: ledger.genesisHash,
      node: fromHex(key),
      challenge: fromHex(challenge),
      worker: account,
      at: BigInt(at),
    });
    return [at, toHex(encode(multiSignature, signed(by, digest)))] as const;
  };
  const jobs: { job: string; request: string }[] = [];
  const attach = ([at, signature]: readonly [number, string]) =>
    line.subscribe('worker_attach', 'worker_detach', [toHex(account), at, signature, [adapter]], (each) => {
      if ((each as { type: string }).type === 'generate') jobs.push(each as { job: string; request: string });
    });
  test.equal(await codeOf(line.call('worker_serving', [adapter])), 'NOT_ATTACHED');
  test.equal(await codeOf(attach([Date.now(), toHex(new Uint8Array(65))])), 'NO_CHALLENGE');
  const challenge = await line.call<Challenge>('worker_challenge');
  test.equal(await codeOf(prove(challenge, payer).then(attach)), 'BAD_SIGNATURE', 'another key');
  test.equal(await codeOf(prove(challenge).then(attach)), 'NO_CHALLENGE', 'a challenge is good for one try');
  const late = await prove(await line.call<Challenge>('worker_challenge'), worker, Date.now() - 3_600_000);
  test.equal(await codeOf(attach(late)), 'BAD_CLOCK', 'an old one');
  await attach(await prove(await line.call<Challenge>('worker_challenge')));

  /** A prompt whose answer somebody is paid for. */
  const rules = receiptRules(DEFAULT_RULES, 100_000_000);
  const asked = { maxTokens: 12, temperature: 0, topP: 1_000_000_000, seed: 1n, stop: [] };
  const nobody = { payload: {} as Voucher, signature: signed(payer, new Uint8Array(32)) };
  const textOf = (value: string) => ({ type: 'Text' as const, value });
  let prompt = '';
  for (const each of ['slate', 'otter', 'flint', 'newt', 'chalk', 'wren']) {
    prompt = model.tokenizer.chat([{ role: 'user', content: `What is ${each}?` }]);
    const paid = { ...nobody, payload: { ...nobody.payload, price: PRICE } };
    const { receipt } = await served.answer(
      { ...asked, input: textOf(prompt), voucher: paid },
      { worker: account, lease, rules },
    );
    if (receipt.shares.length > 0) break;
  }

  // 2. Vouchers: the session's key, in order, once, within the deposit, at the adapter's price.
  let nonce = 0n;
  const requestWith = (change: Partial<Voucher> = {}, by: Signer = payer) => {
    const terms = { input: textOf(prompt), ...asked };
    const payload: Voucher = {
      chain: ledger.genesisHash,
      session: session as SessionId,
      worker: account,
      nonce: ++nonce,
      cumulative: OPEN,
      most: OPEN,
      adapter,
      price: PRICE,
      markup: 100_000_000,
      request: hashOf(hashing, requestTerms, terms),
      ...change,
    };
    return { voucher: { payload, signature: signed(by, hashOf(hashing, voucher, payload)) }, ...terms };
  };
  type Told = { type: string; code?: string; reason?: string | null; text?: string };
  const ask = async (request: GenerationRequest): Promise<{ readonly outcome: Promise<Told> }> => {
    let tell: (told: Told) => void = () => {};
    const outcome = new Promise<Told>((resolve) => {
      tell = resolve;
    });
    await ledger.rpc.subscribe(
      'inference_generate',
      'inference_cancel',
      [toHex(encode(generationRequest, request))],
      (each) => {
        const told = each as Told;
        if (told.type === 'answer' || told.type === 'error') tell(told);
      },
    );
    return { outcome };
  };
  const refusal = (change: Partial<Voucher>, by?: Signer) => codeOf(ask(requestWith(change, by)));
  test.equal(await refusal({}, worker), 'BAD_VOUCHER', 'another key');
  test.equal(
    await refusal({ chain: ledger.genesisHash.map((byte) => byte ^ 1) as never }),
    'BAD_VOUCHER',
    'another chain',
  );
  test.equal(await refusal({ session: 99n as SessionId }), 'BAD_VOUCHER', 'no session');
  test.equal(await refusal({ cumulative: 5n * OPEN + 1n }), 'DEPOSIT_SPENT', 'over the deposit');
  test.equal(await refusal({ price: { ...PRICE, output: 1n } }), 'WRONG_PRICE');
  test.equal(await refusal({ adapter: 7 as AdapterId }), 'NOT_SERVED');
  test.equal(await refusal({ worker: asAccountId(new Uint8Array(payer.publicKey)) }), 'NO_WORKER');
  // The voucher was signed for one request, and for no other.
  const { voucher: bound, ...terms } = requestWith();
  for (const change of [
    { input: textOf(`${prompt} `) },
    { input: { type: 'Chat' as const, value: [{ role: 'user', content: prompt }] } },
    { maxTokens: 13 },
    { temperature: 1 },
    { topP: 999_999_999 },
    { seed: 2n },
    { stop: ['.'] },
  ]) {
    test.equal(
      await codeOf(ask({ voucher: bound, ...terms, ...change })),
      'BAD_VOUCHER',
      JSON.stringify(change, plain),
    );
  }
  // Who asks the same again under the same voucher hears the same answer: it is one job.
  const accepted = requestWith();
  const before = await ask(accepted);
  const again = await ask(accepted);
  test.equal((await before.outcome).code, 'ASKED_AGAIN', 'whoever asked before hears no more of it');

  // 3. Receipts: what the worker hands in is checked before anybody relies on it.
  const job = async () => {
    const found = await until('the job', async () => jobs.shift());
    const request = decode(generationRequest, fromHex(found.request));
    const made = await served.answer(request, { worker: account, lease, rules });
    return { id: found.job, made };
  };
  const handIn = (id: string, payload: InferenceReceipt, text: string, by: Signer = worker) => {
    const receipt = { payload, signature: signed(by, hashOf(hashing, inferenceReceipt, payload)) };
    return codeOf(line.call('worker_answer', id, toHex(encode(signedInferenceReceipt, receipt)), text));
  };
  const first = await job();
  test.equal(await handIn(first.id, first.made.receipt, first.made.text), 'no error', 'an honest one');
  test.equal(await handIn(first.id, first.made.receipt, first.made.text), 'UNKNOWN_JOB', 'a job is answered once');
  const heard = await again.outcome;
  test.same([heard.type, heard.text], ['answer', first.made.text]);
  const third = await ask(accepted);
  test.same(await third.outcome, heard, 'an answer that was heard is told again as it was');
  test.same(jobs, [], 'for all of it the worker was asked once');

  const tampered = async (
    change: (receipt: InferenceReceipt) => InferenceReceipt,
    { text = (said: string) => said, by = worker as Signer } = {},
  ): Promise<string | undefined | null> => {
    const { outcome } = await ask(requestWith());
    const { id, made } = await job();
    test.equal(await handIn(id, change(made.receipt), text(made.text), by), 'BAD_RECEIPT');
    const told = await outcome;
    test.equal(told.code, 'BAD_RECEIPT', 'nor does the application get it');
    return told.reason;
  };
  const raised = (receipt: InferenceReceipt): InferenceReceipt => ({
    ...receipt,
    shares: receipt.shares.map((each, at) => (at === 0 ? { ...each, influence: each.influence + 1n } : each)),
  });
  test.match(await tampered(raised), /^(INFLUENCE|AMOUNT)$/, 'a forged score');
  test.equal(await tampered((receipt) => receipt, { by: payer }), 'BAD_SIGNATURE', 'signed with another key');
  test.equal(await tampered(() => first.made.receipt), 'OTHER_VOUCHER', 'a replayed receipt');
  test.equal(
    await tampered((receipt) => ({ ...receipt, lease: (lease + 1n) as typeof lease })),
    'NOT_SERVING',
    'another lease',
  );
  test.equal(await tampered((receipt) => ({ ...receipt, fee: receipt.fee + 1n })), 'FEE', 'a higher fee');
  test.equal(await tampered((receipt) => ({ ...receipt, pool: receipt.pool - 1n })), 'POOL', 'less for contributors');
  test.equal(
    await tampered((receipt) => ({ ...receipt, shares: [], remainder: receipt.pool })),
    'MISSING_SHARE',
    'contributors left out',
  );
  test.equal(await tampered((receipt) => receipt, { text: (said) => `${said}!` }), 'OTHER_TEXT', 'another answer');
  test.equal(await tampered((receipt) => ({ ...receipt, promptHash: receipt.outputHash })), 'OTHER_PROMPT');
  test.equal(await tampered((receipt) => ({ ...receipt, training: receipt.promptHash })), 'OTHER_TRAINING');
  await served.close();
});
