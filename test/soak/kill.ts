/**
 * `npm run soak:kill -- --times 50`: a node that authors, votes and imports under load is killed at random moments, also while it
 * starts, and its database read from end to end each time. `--validators 4` puts it among others, who watch it for two
 * blocks in one slot and two votes in one round.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { type ChainSpec, chainSpecJson } from '../../node/chain-spec/chain-spec.ts';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { ENDOWMENT, publicKeys } from '../bench/support/accounts.ts';
import { type NodeProcess, spawnNode } from '../bench/support/node-process.ts';
import { RpcClient } from '../bench/support/rpc-client.ts';
import { type Found, inspect } from './support/consistency.ts';
import { Heads, transactionsOf } from './support/heads.ts';
import { Load } from './support/load.ts';

export interface SoakOptions {
  readonly times: number;
  /** 1: the node is alone. */
  readonly validators: number;
  readonly slotMs: number;
  readonly accounts: number;
  /** Transfers a second that are sent to it, and to one of the others. */
  readonly rate: number;
  readonly say: (line: string) => void;
}

export interface SoakResult {
  readonly kills: number;
  readonly killedWhileStarting: number;
  readonly finalized: number;
  readonly blocks: number;
  readonly sent: number;
  /** Extrinsics that were seen in final blocks, and looked for again after every kill and every start. */
  readonly finalTransactions: number;
  /** From the start of a process to its serving, the longest. */
  readonly slowestStartMs: number;
  readonly faults: readonly string[];
}

const NAMES = ['alice', 'bob', 'charlie', 'dave', 'eve', 'ferdie'];
/** One in so many is killed before it is up. */
const EARLY = 5;
const LONGEST_LIFE_MS = 3_500;
/** Final blocks that a node which came back is asked for. */
const SHOWN_BLOCKS = 20;

async function specWith(validators: number, slotDurationMs: number, accounts: number): Promise<ChainSpec> {
  const authorities = NAMES.slice(0, validators).map((name) => name[0]!.toUpperCase() + name.slice(1));
  const spec = presetSpec('local', { slotDurationMs, authorities });
  if (spec.genesis.type !== 'config') throw new Error('a built-in chain is described by a configuration');
  const { config } = spec.genesis;
  const balances = (await publicKeys(accounts)).map((key) => ({
    account: key as (typeof config.balances)[number]['account'],
    amount: ENDOWMENT,
  }));
  return { ...spec, genesis: { type: 'config', config: { ...config, balances: [...config.balances, ...balances] } } };
}

/** Votes by round that the killed node's records show, over all of its lives. */
class Votes {
  readonly #cast = new Map<string, string>();
  readonly faults: string[] = [];
  note({ votes }: Found): void {
    if (votes === undefined) return;
    for (const { kind, target } of votes.own) {
      const place = `set ${votes.setId}, round ${votes.round}, ${kind}`;
      const before = this.#cast.get(place);
      if (before !== undefined && before !== target.hash) this.faults.push(`two votes in ${place}`);
      this.#cast.set(place, target.hash);
    }
  }
}

export async function soakKill(options: SoakOptions): Promise<SoakResult> {
  const { times, validators, slotMs, accounts, say } = options;
  const home = await mkdtemp(join(tmpdir(), 'soak-'));
  const chain = join(home, 'chain.json');
  const spec = await specWith(validators, slotMs, accounts);
  await writeFile(chain, chainSpecJson(spec));
  const heads = new Heads();
  const votes = new Votes();
  const faults: string[] = [];
  const others: NodeProcess[] = [];
  const clients: RpcClient[] = [];
  const end = new AbortController();
  const loads: Promise<void>[] = [];
  let killed = 0;
  let early = 0;
  let slowestStartMs = 0;
  let bootnodes: readonly string[] = [];
  let running: ReturnType<typeof spawnNode> | undefined;
  const argsOf = (i: number): string[] => [
    ...['node', '--chain', chain, '--base-path', join(home, String(i)), `--${NAMES[i]}`, '--rpc-port', '0'],
    ...[
      '--listen-addr',
      '/ip4/127.0.0.1/tcp/0',
      '--no-mdns',
      '--no-prometheus',
      ...bootnodes.flatMap((each) => ['--bootnodes', each]),
    ],
  ];
  try {
    for (let i = 1; i < validators; i++) {
      const node = await spawnNode(argsOf(i)).ready;
      others.push(node);
      const client = await RpcClient.connect(node.ws);
      clients.push(client);
      await heads.follow(client);
      bootnodes = [...bootnodes, ...(await client.call<string[]>('system_localListenAddresses'))];
    }
    let load: Load | undefined;
    let before: Found | undefined;
    /** What was in the last final blocks that anyone was told of is in them still, where the node has them. */
    const checkShown = async (client: RpcClient): Promise<void> => {
      const { number } = await client.call<{ number: string }>(
        'chain_getHeader',
        await client.call<string>('chain_getFinalizedHead'),
      );
      const final = Number(number);
      const lowest = final - SHOWN_BLOCKS;
      const heights = new Set([...heads.transactions.values()].filter((each) => each > lowest && each <= final));
      for (const height of heights) {
        const shown = new Set(await transactionsOf(client, heads.final.get(height)!));
        for (const [hash, at] of heads.transactions) {
          if (at === height && !shown.has(hash)) faults.push(`block ${height} is shown without a transaction it had`);
        }
      }
    };
    /** The node under test, until it is killed. */
    const live = async (isEarly: boolean): Promise<void> => {
      running = spawnNode(argsOf(0));
      const started = performance.now();
      if (isEarly) {
        running.ready.catch(() => {});
        await pause(Math.random() * Math.max(slowestStartMs, 500));
      } else {
        const node = await running.ready;
        slowestStartMs = Math.max(slowestStartMs, performance.now() - started);
        const client = await RpcClient.connect(node.ws);
        await checkShown(client);
        await heads.follow(client);
        if (load === undefined) {
          const version = await client.call<{ specVersion: number; transactionVersion: number }>(
            'state_getRuntimeVersion',
          );
          const genesisHash = fromHex(await client.call<string>('chain_getBlockHash', 0));
          const seconds = ((times + 2) * LONGEST_LIFE_MS) / 1_000;
          const perAccount = Math.ceil((options.rate * seconds * Math.min(validators, 2)) / accounts);
          load = await Load.prepare({ accounts, perAccount, rate: options.rate, genesisHash, ...version });
        }
        const until = new AbortController();
        const loading = load.run(node.ws, until.signal);
        if (others[0] !== undefined && loads.length === 0) loads.push(load.run(others[0].ws, end.signal));
        // Long enough to come level with the others, at times, on a machine that is slow.
        await pause(Math.random() * Math.max(LONGEST_LIFE_MS, slowestStartMs));
        running.child.kill('SIGKILL');
        until.abort();
        await loading;
        client.close();
      }
      running.child.kill('SIGKILL');
      await running.ended;
    };
    while (killed < times) {
      const isEarly = killed % EARLY === EARLY - 1;
      await live(isEarly);
      killed++;
      if (isEarly) early++;
      const found = await inspect(join(home, '0', 'chains', spec.id, 'db'));
      if (found === undefined) {
        if (before !== undefined) faults.push('the chain is gone');
        continue;
      }
      votes.note(found);
      if (before !== undefined && found.finalized < before.finalized) faults.push('finality went back');
      for (const [height, hash] of heads.final) {
        // What the others made final meanwhile need not be here.
        const here = found.chain[height];
        if (height <= found.finalized && here !== hash) faults.push(`block ${height} was final and is not any more`);
        if (validators === 1 && here === undefined) faults.push(`block ${height} was final and is gone`);
      }
      for (const [hash, height] of heads.transactions) {
        if (height <= found.finalized && found.transactions.get(hash) !== height) {
          faults.push(`a transaction of the final block ${height} is lost`);
        }
      }
      if (validators === 1) {
        for (const [hash, height] of heads.told) if (!found.blocks.has(hash)) faults.push(`block ${height} is gone`);
        for (const [key, nonce] of before?.nonces ?? []) {
          if ((found.nonces.get(key) ?? 0) < nonce) faults.push('a transfer that was in a block is not any more');
        }
      }
      before = found;
      say(
        `kill ${killed}${isEarly ? ' (starting)' : ''}: best ${found.best}, final ${found.finalized}, ${faults.length} faults`,
      );
    }
    // It comes back once more, and takes part.
    running = spawnNode(argsOf(0));
    const node = await running.ready;
    const client = await RpcClient.connect(node.ws);
    const height = async (each: RpcClient): Promise<number> => {
      const hash = await each.call<string>('chain_getFinalizedHead');
      return Number((await each.call<{ number: string }>('chain_getHeader', hash)).number);
    };
    const goal = (await height(clients[0] ?? client)) + 3;
    const deadline = performance.now() + 90_000;
    while ((await height(client)) < goal) {
      if (performance.now() > deadline) {
        faults.push('it does not come level within 90 s');
        break;
      }
      await pause(100);
    }
    // What was accepted in any of its lives is in a block, or waits for one.
    const lost = async (): Promise<number> => {
      const found = await Promise.all(
        [...(load?.acknowledged ?? [])].map(async ([address, nonce]) => {
          const next = [client, ...clients].map((each) => each.call<number>('system_accountNextIndex', address));
          return Math.max(...(await Promise.all(next))) > nonce;
        }),
      );
      return found.filter((each) => !each).length;
    };
    let lacking = await lost();
    for (; lacking > 0 && performance.now() < deadline; lacking = await lost()) await pause(200);
    if (lacking > 0) faults.push(`${lacking} accounts lack transfers that were accepted`);
    const hash = await client.call<string>('chain_getBlockHash', goal - 3);
    for (const each of clients) {
      if ((await each.call<string>('chain_getBlockHash', goal - 3)) !== hash) faults.push('the nodes disagree');
    }
    end.abort();
    await Promise.all(loads);
    client.close();
    await node.stop();
    const last = await inspect(join(home, '0', 'chains', spec.id, 'db'));
    if (last !== undefined) votes.note(last);
    for (const other of others) {
      if (/voted twice|equivocation/.test(other.log())) faults.push('another validator saw two votes');
    }
    return {
      kills: killed,
      killedWhileStarting: early,
      finalized: last?.finalized ?? 0,
      blocks: heads.count,
      sent: load?.sent ?? 0,
      finalTransactions: heads.transactions.size,
      slowestStartMs: Math.round(slowestStartMs),
      faults: [...faults, ...heads.faults, ...votes.faults],
    };
  } finally {
    end.abort();
    for (const client of clients) client.close();
    running?.child.kill('SIGKILL');
    await running?.ended;
    await Promise.allSettled(others.map((each) => each.stop('SIGKILL')));
    await rm(home, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      times: { type: 'string', default: '50' },
      validators: { type: 'string', default: '1' },
      slot: { type: 'string', default: '500' },
      rate: { type: 'string', default: '200' },
    },
  });
  const result = await soakKill({
    times: Number(values.times),
    validators: Number(values.validators),
    slotMs: Number(values.slot),
    accounts: 200,
    rate: Number(values.rate),
    say: (line) => console.log(line),
  });
  console.log(JSON.stringify(result, undefined, 2));
  const directory = fileURLToPath(new URL('../../bench-results/', import.meta.url));
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, `soak-kill-${values.validators}.json`), `${JSON.stringify(result, undefined, 2)}\n`);
  if (result.faults.length > 0) process.exitCode = 1;
}
