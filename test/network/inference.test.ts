/**
 * The main job across nodes: records handed in at one node, a worker at another that trains and serves, an application at a
 * third that asks. Blobs find their way by themselves, and each node verifies the receipt with files that it fetched.
 */
import t from 'tap';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import type { Network } from '../../p2p/network.ts';
import { awaitAdapter } from '../../rpc/client/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { generationRequest } from '../../runtime/primitives/attribution/messages.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  signedInferenceReceipt,
  voucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { RpcClient } from '../bench/support/rpc-client.ts';
import { order, world } from '../gpu-worker/ledger-world.ts';
import { attachWorker, hashing, OPEN, openGateway } from '../main-job/support.ts';
import { openFor } from '../support/sessions.ts';
import { until } from '../support/until.ts';
import { addressOf, directories, loopback, startMember } from './nodes.ts';

t.test('a worker at one node, an application at another', { timeout: 170_000 }, async (test) => {
  const chain = await world(test, { slotDurationMs: 500, network: loopback([]) });
  const { ledger, node, pair } = chain;
  const spec = presetSpec('dev', { slotDurationMs: 500 });
  const homes = await directories(2);
  test.teardown(() => homes.remove());
  const join = async (i: number) => {
    const bootNodes = [addressOf(node)];
    const member = await startMember({
      name: `node${i}`,
      spec,
      directory: homes.paths[i]!,
      authority: undefined,
      bootNodes,
    });
    test.teardown(() => member.stop());
    return member;
  };
  const [far, third] = await Promise.all([join(0), join(1)]);
  const worker = pair('//Bob');
  await attachWorker(test, { node: far.node.rpc.ws, key: worker, settleMs: 60_000 });
  // The records are at the first node alone, and the adapter's files are handed to the worker's.
  const id = await order(chain, 'things');
  const onlooker = await RpcClient.connect(third.node.rpc.ws);
  test.teardown(() => onlooker.close());
  const reports: { readonly order: number; readonly phase: string; readonly done: number }[] = [];
  await onlooker.subscribe<(typeof reports)[0]>('training_watch', [id], (report) => reports.push(report));
  await awaitAdapter(ledger, id);
  test.ok(reports.length > 1, 'a node far from the worker tells how training goes');
  test.ok(reports.every((each) => each.order === id && each.phase.length > 0 && each.done >= 0 && each.done <= 1));

  const payer = pair('//Eve');
  const key = payer.derive('//session');
  const session = await openFor(ledger, payer, key.publicKey, worker, 20n * OPEN);
  const gateway = await openGateway(test, { node: node.rpc.ws, key, session, apiKey: 'secret' });
  const headers = { authorization: 'Bearer secret', 'content-type': 'application/json' };
  await until('the adapter at the first node', async () => {
    const response = await fetch(`${gateway.url}/models`, { headers });
    const { data } = (await response.json()) as { data: readonly { readonly id: string }[] };
    return data.find(({ id }) => id === 'things');
  });
  const told: { readonly receipt: string; readonly worker: string }[] = [];
  await onlooker.subscribe<(typeof told)[0]>('attribution_subscribeReceipts', [], (each) => told.push(each));
  const response = await fetch(`${gateway.url}/completions`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ model: 'things', prompt: 'The otter lives', max_tokens: 8, temperature: 0 }),
  });
  const answer = (await response.json()) as {
    readonly choices?: readonly { readonly text: string }[];
    readonly attribution?: { readonly worker: string; readonly receipt: string; readonly request: string };
  };
  test.equal(response.status, 200);
  test.ok(answer.choices![0]!.text.length > 0, 'an answer');
  test.equal(answer.attribution!.worker, worker.address);
  for (const [name, url] of [
    ['the first node', node.rpc.http],
    ['a third one', third.node.rpc.http],
  ] as const) {
    const call = { jsonrpc: '2.0', id: 1, method: 'attribution_verify', params: [answer.attribution!.receipt] };
    const verified = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(call),
    });
    const { result } = (await verified.json()) as { readonly result: unknown };
    test.same(result, { valid: true, fault: null }, `verified at ${name} with files that it has fetched`);
  }

  // Who asks the same again under the same voucher, at whatever node, hears the same answer; nobody else's question goes under it.
  const asked = decode(requestTerms, fromHex(answer.attribution!.request));
  const { voucher: paid } = decode(signedInferenceReceipt, fromHex(answer.attribution!.receipt)).payload;
  type Told = { readonly type: string; readonly receipt?: string };
  const again = (terms: typeof asked): Promise<Told> =>
    new Promise((resolve, reject) => {
      const request = toHex(encode(generationRequest, { voucher: paid, ...terms }));
      const hear = (each: Told): void => {
        if (each.type === 'answer' || each.type === 'error') resolve(each);
      };
      onlooker.subscribe<Told>('inference_generate', [request], hear).catch(reject);
    });
  test.match(
    await again(asked),
    { type: 'answer', receipt: answer.attribution!.receipt },
    'asked again at a third node',
  );
  test.match(await again({ ...asked, maxTokens: 9 }), { type: 'error', code: 'BAD_VOUCHER' }, 'another question');

  // The receipt went by gossip to everyone, and everyone has verified it.
  await until('the receipt at the third node', () => told.length > 0);
  test.same(
    told.map(({ receipt }) => receipt),
    [answer.attribution!.receipt],
  );
  test.equal(told[0]!.worker, toHex(worker.publicKey));

  // The third node lies: under vouchers that are good, by the worker's own key, with a fee that is not the answer's.
  const genuine = decode(signedInferenceReceipt, fromHex(answer.attribution!.receipt));
  const by = (pair: typeof worker, digest: Uint8Array) => ({ type: 'Sr25519' as const, value: pair.sign(digest) });
  const under = (nonce: bigint, change: Partial<InferenceReceipt> = {}): Uint8Array => {
    const promise = { ...genuine.payload.voucher.payload, nonce };
    const signature = by(key, hashOf(hashing, voucher, promise));
    const payload = { ...genuine.payload, voucher: { payload: promise, signature }, ...change };
    const receipt = { payload, signature: by(worker, hashOf(hashing, inferenceReceipt, payload)) };
    return encode(signedInferenceReceipt, receipt);
  };
  const first = await RpcClient.connect(node.rpc.ws);
  test.teardown(() => first.close());
  const heard: string[] = [];
  await first.subscribe<{ receipt: string }>('attribution_subscribeReceipts', [], ({ receipt }) => heard.push(receipt));
  const { nonce } = genuine.payload.voucher.payload;
  const room = (third.node.network as Network).wire().join({
    name: 'receipts',
    maxMessage: 1 << 20,
    perSecond: 100,
    burst: 100,
    validate: () => ({ type: 'ignore' }),
  });
  room.publish(under(nonce + 1n, { fee: genuine.payload.fee + 1n }));
  room.publish(under(nonce + 2n, { shares: [], remainder: genuine.payload.pool }));
  room.publish(Uint8Array.of(1, 2, 3));
  room.publish(under(nonce + 3n));
  await until('the one that holds at the first node', () => heard.length > 0);
  test.equal(heard.length, 1, 'what does not hold is not taken');
  const [only] = heard.map((each) => decode(signedInferenceReceipt, fromHex(each)));
  test.equal(only!.payload.voucher.payload.nonce, nonce + 3n);
});
