/**
 * The main job across nodes: records handed in at one node, a worker at another that trains and serves, an application at a
 * third that asks. Blobs find their way by themselves, and each node verifies the receipt with files that it fetched.
 */
import t from 'tap';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { awaitAdapter } from '../../rpc/client/models.ts';
import { openSession } from '../../rpc/client/sessions.ts';
import { order, world } from '../gpu-worker/ledger-world.ts';
import { attachWorker, OPEN, openGateway } from '../main-job/support.ts';
import { until } from '../support/until.ts';
import { addressOf, directories, loopback, startMember } from './nodes.ts';

t.test('a worker at one node, an application at another', { timeout: 118_000 }, async (test) => {
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
  await attachWorker(test, { node: far.node.rpc.ws, pair: worker, settleMs: 60_000 });
  // The records are at the first node alone, and the adapter's files are handed to the worker's.
  await awaitAdapter(ledger, await order(chain, 'things'));

  const payer = pair('//Eve');
  const key = payer.derive('//session');
  const session = await openSession(ledger, payer, key.publicKey, 20n * OPEN);
  const gateway = await openGateway(test, { node: node.rpc.ws, key, session, apiKey: 'secret' });
  const headers = { authorization: 'Bearer secret', 'content-type': 'application/json' };
  await until('the adapter at the first node', async () => {
    const response = await fetch(`${gateway.url}/models`, { headers });
    const { data } = (await response.json()) as { data: readonly { readonly id: string }[] };
    return data.find(({ id }) => id === 'things');
  });
  const response = await fetch(`${gateway.url}/completions`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ model: 'things', prompt: 'The otter lives', max_tokens: 8, temperature: 0 }),
  });
  const answer = (await response.json()) as {
    readonly choices?: readonly { readonly text: string }[];
    readonly attribution?: { readonly worker: string; readonly receipt: string };
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
});
