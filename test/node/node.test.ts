/** A whole node with real clients: what a wallet does, and what a restart keeps. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ApiPromise, Keyring, WsProvider } from '@polkadot/api';
import { cryptoWaitReady } from '@polkadot/util-crypto';
import t from 'tap';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { type Node, startNode } from '../../node/service.ts';

const OPEN = 10n ** 18n;

async function start(basePath: string, slotDurationMs = 500) {
  const stop = new AbortController();
  const warnings: string[] = [];
  const node = await startNode(
    {
      name: 'test',
      version: '0',
      spec: presetSpec('dev', { slotDurationMs }),
      basePath,
      statePruning: 256,
      authority: '//Alice',
      rpc: { host: '127.0.0.1', port: 0, methods: 'auto' },
      log: (level, message) => {
        if (level === 'warn' || level === 'error') warnings.push(message);
      },
    },
    stop.signal,
  );
  return {
    node,
    warnings,
    close: async () => {
      stop.abort();
      await node.stopped;
    },
  };
}

async function connect(node: Node) {
  const provider = new WsProvider(node.rpc.ws, false);
  await provider.connect();
  return ApiPromise.create({ provider: provider as never, noInitWarn: true });
}

/** Sum of what all accounts have, and what the ledger says there is. */
async function books(api: ApiPromise) {
  const at = await api.at(await api.rpc.chain.getFinalizedHead());
  const accounts = await at.query.system!.account!.entries();
  const sum = accounts.reduce((total, [, info]) => {
    const { free, reserved } = (info as unknown as { data: { free: bigint; reserved: bigint } }).data;
    return total + BigInt(free.toString()) + BigInt(reserved.toString());
  }, 0n);
  return { sum, issuance: BigInt((await at.query.balances!.totalIssuance!()).toString()) };
}

t.test('@polkadot/api: transfers of all key kinds, fees, events, and a restart', { timeout: 90_000 }, async (test) => {
  await cryptoWaitReady();
  const directory = await mkdtemp(join(tmpdir(), 'node-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  let running = await start(directory);
  let api = await connect(running.node);
  test.equal(api.runtimeVersion.specName.toString(), 'openledger');
  test.equal(api.runtimeMetadata.version, 16);

  const alice = new Keyring({ type: 'sr25519' }).addFromUri('//Alice');
  const send = (call: ReturnType<typeof api.tx>, by: typeof alice, options = {}) =>
    new Promise<{ block: string; events: string[]; fee: bigint }>((resolve, reject) => {
      call
        .signAndSend(by, options, ({ status, events, dispatchError, isError }) => {
          if (isError || dispatchError) reject(new Error(`${status} ${dispatchError}`));
          if (!status.isFinalized) return;
          const paid = events.find(({ event }) => event.method === 'TransactionFeePaid')!;
          resolve({
            block: status.asFinalized.toHex(),
            events: events.map(({ event }) => `${event.section}.${event.method}`),
            fee: BigInt(paid.event.data[1]!.toString()),
          });
        })
        .catch(reject);
    });

  const transfer = (to: string, amount: bigint) => api.tx.balances!.transferKeepAlive!(to, amount);
  const kinds = (['sr25519', 'ed25519', 'ecdsa'] as const).map((type) => new Keyring({ type }).addFromUri('//Someone'));
  for (const pair of kinds) {
    const call = transfer(pair.address, 10n * OPEN);
    const estimate = BigInt((await call.paymentInfo(alice)).partialFee.toString());
    const sent = await send(call as never, alice);
    test.equal(sent.fee, estimate, 'the fee charged is the fee estimated');
    test.ok(sent.events.includes('balances.Transfer'));
  }
  const nonceOf = async (address: string): Promise<number> =>
    ((await api.query.system!.account!(address)) as unknown as { nonce: { toNumber(): number } }).nonce.toNumber();
  const began = await nonceOf(kinds[0]!.address);
  for (const pair of kinds) {
    const sent = await send(transfer(alice.address, OPEN) as never, pair, { tip: 7n, era: 0 });
    test.ok(sent.events.includes('system.ExtrinsicSuccess'), `${pair.type}, immortal, with a tip`);
  }

  const stale = transfer(alice.address, OPEN);
  await test.rejects(stale.signAndSend(alice, { nonce: 0 }), { code: 1010 }, 'an old nonce');
  const poor = new Keyring({ type: 'sr25519' }).addFromUri('//Nobody');
  await test.rejects(transfer(alice.address, OPEN).signAndSend(poor), { code: 1010 }, 'nobody has nothing to pay with');
  await test.rejects(api.rpc.author.submitExtrinsic('0x00' as never), 'bytes that are no extrinsic');

  const { sum, issuance } = await books(api);
  test.equal(sum, issuance, 'all balances together are the total issuance');
  const head = await api.rpc.chain.getHeader();
  for (let number = 1; number <= head.number.toNumber(); number++) {
    const hash = await api.rpc.chain.getBlockHash(number);
    const block = await api.rpc.chain.getBlock(hash);
    const at = await api.at(hash);
    const events = (await at.query.system!.events!()) as unknown as { length: number };
    if (block.block.extrinsics.length === 0 || events.length === 0) test.fail(`block ${number} is not readable`);
  }

  const { finalized } = running.node.client.blocks.info();
  const justified = running.node.client.blocks.justifications(finalized.hash);
  test.equal(justified?.length, 1, 'finality has its proof');
  // A machine that is slow is no fault of the node.
  test.same(
    running.warnings.filter((each) => each !== 'a block took longer than its slot'),
    [],
  );
  await api.disconnect();
  await running.close();

  running = await start(directory);
  const again = running.node.client.blocks.info();
  test.ok(again.finalized.number >= finalized.number, 'what was final is final after a restart');
  api = await connect(running.node);
  test.ok(began > 0, 'an account begins with the number of its block');
  test.equal(await nonceOf(kinds[0]!.address), began + 1);
  await api.disconnect();
  await running.close();
});

t.test('a database of another chain is refused', async (test) => {
  const directory = await mkdtemp(join(tmpdir(), 'node-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  const first = await start(directory, 500);
  await test.rejects(start(directory, 500), { code: 'LOCKED' });
  await first.close();
  await test.rejects(start(directory, 600), { code: 'OTHER_CHAIN' });
});
