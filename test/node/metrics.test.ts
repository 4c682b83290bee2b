/** Metrics as Prometheus reads them, against what RPC says; the lines of the informant; an end under load. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import t from 'tap';
import type { Client, NetworkStatus } from '../../node/ports/chain.ts';
import type { Clock } from '../../node/ports/machine.ts';
import { startNode } from '../../node/service.ts';
import { duration, Informant } from '../../node/services/informant.ts';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { chainWith, publicKeys, signedTransfers } from '../bench/support/accounts.ts';
import { RpcClient } from '../bench/support/rpc-client.ts';

const ACCOUNTS = 200;

async function start(metricsPort: number) {
  const stop = new AbortController();
  const lines: string[] = [];
  const node = await startNode(
    {
      name: 'metrics',
      version: '1.2.3',
      spec: chainWith(await publicKeys(ACCOUNTS), 500),
      basePath: undefined,
      statePruning: 256,
      authority: '//Alice',
      rpc: { host: '127.0.0.1', port: 0, methods: 'auto' },
      metrics: { host: '127.0.0.1', port: metricsPort },
      log: (_level, message) => lines.push(message),
    },
    stop.signal,
  );
  return { node, lines, stop };
}

/** By name and labels, `chain` left out. Throws at a line that is none of the text format (exposition_formats.md). */
function parse(text: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const line of text.split('\n')) {
    if (line === '' || /^# (HELP|TYPE) [a-zA-Z_:][\w:]* /.test(line)) continue;
    const found = /^([a-zA-Z_:][\w:]*)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} (\S+)$/.exec(line);
    if (found === null) throw new Error(`not of the text format: ${line}`);
    const [, name, labels, value] = found;
    const kept = labels!.split(',').filter((each) => each !== '' && each !== 'chain="openledger_dev"');
    values.set(kept.length === 0 ? name! : `${name}{${kept.join(',')}}`, Number(value));
  }
  return values;
}

t.test('metrics, health, and an end under load', { timeout: 60_000 }, async (test) => {
  const { node, lines, stop } = await start(0);
  const url = node.metricsUrl!;
  const read = async () => parse(await (await fetch(url)).text());
  const client = await RpcClient.connect(node.rpc.ws);
  const heightAt = async (least: number): Promise<number> => {
    for (;;) {
      const height = Number((await client.call<{ number: string }>('chain_getHeader')).number);
      if (height >= least) return height;
      await pause(50);
    }
  };
  const before = await heightAt(2);
  const first = await read();
  test.ok(first.get('substrate_block_height{status="best"}')! >= before);
  test.ok(first.get('substrate_block_height{status="finalized"}')! >= 1);
  test.equal(first.get('substrate_build_info{name="metrics",version="1.2.3"}'), 1);
  test.equal(first.get('substrate_node_roles'), 5);
  test.equal(first.get('substrate_sub_libp2p_peers_count'), 0);
  test.equal(first.get('substrate_sub_libp2p_is_major_syncing'), 0);
  test.equal(first.get('substrate_tasks_spawned_total{task_name="aura"}'), 1);
  test.ok(first.get('substrate_proposer_block_proposal_time_count')! >= before);
  test.ok(first.get('substrate_block_verification_and_import_time_count{result="imported"}')! >= before);
  for (const name of ['process_cpu_seconds_total', 'process_resident_memory_bytes', 'substrate_rpc_calls_started']) {
    test.ok(first.get(name)! > 0, name);
  }
  const { best } = await client.call<{ best: { round: number } }>('grandpa_roundState');
  test.ok(Math.abs(first.get('substrate_finality_grandpa_round')! - best.round) <= 3, 'the round that RPC tells');

  const version = await client.call<{ specVersion: number; transactionVersion: number }>('state_getRuntimeVersion');
  const genesisHash = fromHex(await client.call<string>('chain_getBlockHash', 0));
  const job = { accounts: ACCOUNTS, firstNonce: 0, perAccount: 10, amount: 10n ** 12n, genesisHash, ...version };
  const extrinsics = await signedTransfers(job);
  await Promise.all(extrinsics.slice(0, 400).map((each) => client.call('author_submitExtrinsic', each)));
  const loaded = await read();
  test.equal(loaded.get('substrate_sub_txpool_submitted_transactions'), 400);
  await heightAt(Number((await client.call<{ number: string }>('chain_getHeader')).number) + 3);
  const later = await read();
  test.equal(later.get('substrate_sub_txpool_block_transactions_pruned'), 400);
  test.equal(later.get('substrate_ready_transactions_number'), 0);
  test.equal((await fetch(url.replace('/metrics', '/'))).status, 404);

  test.same(await (await fetch(`${node.rpc.http}/health`)).json(), {
    peers: 0,
    isSyncing: false,
    shouldHavePeers: false,
  });
  test.equal((await fetch(`${node.rpc.http}/health/readiness`)).status, 200);
  test.ok(lines.some((line) => /^🏆 Imported #1 \(0x[0-9a-f]{4}…[0-9a-f]{4}\)$/.test(line)));

  // Submissions under way must not hold up the end.
  const under = extrinsics.slice(400).map((each) => client.call('author_submitExtrinsic', each).catch(() => {}));
  const from = performance.now();
  stop.abort();
  await node.stopped;
  test.ok(performance.now() - from < 5_000, `stopped in ${Math.round(performance.now() - from)} ms`);
  await Promise.all(under);
  await test.rejects(fetch(url), 'and so are the metrics');
});

t.test('a port for metrics that is taken', async (test) => {
  const other = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => other.once('listening', resolve));
  test.teardown(() => other.close());
  await test.rejects(start((other.address() as AddressInfo).port), { code: 'PORT_TAKEN' });
});

t.test('what the informant says', (test) => {
  let now = 0;
  let number = 100;
  let syncing = true;
  const hash = asHash(new Uint8Array(32).fill(0xab));
  const client = {
    blocks: { info: () => ({ genesisHash: hash, best: { hash, number }, finalized: { hash, number: number - 2 } }) },
    pool: { status: () => ({ ready: syncing ? 0 : 3, future: 0, bytes: 0 }) },
  } as unknown as Client;
  const network = {
    peers: () => [1, 2],
    isMajorSyncing: () => syncing,
    syncTarget: () => 1_000_100,
  } as unknown as NetworkStatus;
  const clock: Clock = { now: () => now, monotonic: () => now, after: () => () => {} };
  const informant = new Informant({ client, network, clock, log: () => {} });
  const heads = (best: number) => `best: #${best} (0xabab…abab), finalized #${best - 2} (0xabab…abab)`;
  test.equal(informant.line(), `⚙️  Syncing 0.0 bps, target=#1000100 (2 peers), ${heads(100)}`);
  now = 5_000;
  number = 2_100;
  test.equal(informant.line(), `⚙️  Syncing 400.0 bps, target=#1000100 (2 peers), ${heads(2_100)}, 41 min 35 s left`);
  syncing = false;
  test.equal(informant.line(), `💤 Idle (2 peers), ${heads(2_100)}, transactions: 3 ready, 0 future`);
  test.same([0, 59, 3_600, 90_061].map(duration), ['0 s', '59 s', '1 h 0 min', '1 d 1 h']);
  test.end();
});
