/**
 * `npm run soak:kill -- --times 200`: a validator among others, that authors, votes and imports under a stream of transfers, is killed
 * over and over: at random moments, while it starts, and around its durable writes (`kill-point.ts`), between what is on disk and
 * what others hear of it. Its database is read each time and held against what it and the others had heard and said.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { type ChainSpec, chainSpecJson } from '../../node/chain-spec/chain-spec.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { derive } from '../../node/keystore/secret-uri.ts';
import { fromHex, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { ENDOWMENT, publicKeys } from '../bench/support/accounts.ts';
import { type NodeProcess, type NodeSpawn, spawnNode } from '../bench/support/node-process.ts';
import { RpcClient } from '../bench/support/rpc-client.ts';
import { type Found, inspect } from './support/consistency.ts';
import { Heads, type Told, transactionsOf } from './support/heads.ts';
import { importOf, type KillPoint, MOMENTS, WRITES } from './support/kill-point.ts';
import { Load } from './support/load.ts';
import { type HeardBlock, type HeardVote, Witness } from './support/witness.ts';

export interface SoakOptions {
  readonly times: number;
  /** No kill after so many minutes, however many there were. */
  readonly minutes?: number;
  /** The one that is killed among them. All must vote while there are fewer than four. */
  readonly validators: number;
  readonly slotMs: number;
  readonly accounts: number;
  /** Transfers a second that are sent to it, and to one of the others. */
  readonly rate: number;
  readonly say: (line: string) => void;
}

export interface SoakResult {
  readonly validators: number;
  readonly kills: number;
  /** By how they came about. */
  readonly killed: { readonly starting: number; readonly atRandom: number; readonly aroundWrites: number };
  readonly finalized: number;
  /** Heard by others, of all authors and voters. */
  readonly blocks: number;
  readonly votes: number;
  /** Of the one that was killed, heard by others and found in its database after the kill. */
  readonly ownBlocks: number;
  readonly ownVotes: number;
  readonly sent: number;
  /** Transactions that were shown in final blocks, and looked for again after every kill and every start. */
  readonly finalTransactions: number;
  /** Transfers that whoever sent them was told are final, and that are. */
  readonly finalTransfers: number;
  /** From the start of a process to its serving, the longest. */
  readonly slowestStartMs: number;
  readonly seconds: number;
  readonly faults: readonly string[];
}

const NAMES = ['alice', 'bob', 'charlie', 'dave', 'eve', 'ferdie'];
const LONGEST_LIFE_MS = 3_500;
/** A write that it waits for in vain so long is not to come: it is killed as it is. */
const PATIENCE_MS = 30_000;
/** Final blocks that a node which came back is asked for. */
const SHOWN_BLOCKS = 20;
const LEVEL_MS = 300_000;
const REPORTS = ['Offences', 'Reports'] as const;

const hashing = createHashing();

type Plan =
  | { readonly type: 'starting' }
  | { readonly type: 'random' }
  | { readonly type: 'write'; readonly point: KillPoint };

const POINTS = MOMENTS.flatMap((at) => WRITES.map((what) => ({ what, at })));

/** Of five kills two are around writes, one of them early in its life, and one falls into the start. */
function planOf(kill: number): Plan {
  if (kill % 5 === 4) return { type: 'starting' };
  if (kill % 5 === 0 || kill % 5 === 2) return { type: 'random' };
  const nth = 2 * Math.floor(kill / 5) + (kill % 5 === 3 ? 1 : 0);
  const point = POINTS[(7 * nth) % POINTS.length]!;
  const most = point.what === 'slot' ? 2 : 6;
  return { type: 'write', point: { ...point, count: 1 + Math.floor(Math.random() * most) } };
}

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

/** Whether the record knows of a vote: it stands there, or the voter is past its round. */
function remembers({ votes }: Found, { setId, round, kind, hash }: HeardVote): boolean {
  if (votes === undefined) return false;
  if (votes.setId !== setId) return votes.setId > setId;
  if (votes.round !== round) return votes.round > round;
  return votes.own.some((each) => each.kind === kind && each.target.hash === hash);
}

/** What is not in a database that was killed, of what had been said or heard before. */
class Ledger {
  readonly faults: string[] = [];
  readonly #heads: Heads;
  #before: Found | undefined;
  ownBlocks = 0;
  ownVotes = 0;

  constructor(heads: Heads) {
    this.#heads = heads;
  }

  get readFrom(): number {
    return this.#before?.finalized ?? 0;
  }

  /** Whether a block lies at or below the last final height, or on top of one there that is not final. */
  #isAbandoned(hash: string, { finalized, chain }: Found): boolean {
    const { blocks, final } = this.#heads;
    for (let at = blocks.get(hash); at !== undefined; at = blocks.get(at.parent)) {
      if (at.number <= finalized) return true;
      if (at.number === finalized + 1) return (chain.get(finalized) ?? final.get(finalized)) !== at.parent;
    }
    return false;
  }

  check(
    found: Found | undefined,
    told: Told | undefined,
    heard: { readonly votes: readonly HeardVote[]; readonly blocks: readonly HeardBlock[] },
  ): void {
    const { faults } = this;
    const before = this.#before;
    if (found === undefined) {
      if (before !== undefined || told !== undefined || heard.votes.length + heard.blocks.length > 0)
        faults.push('the chain is gone');
      return;
    }
    if (before !== undefined && found.finalized < before.finalized) faults.push('finality went back');
    for (const each of heard.blocks) this.#heads.blocks.set(each.hash, each);
    // What finality left behind is removed.
    const holds = (hash: string): boolean => found.blocks.has(hash) || this.#isAbandoned(hash, found);
    for (const [hash, { number }] of told?.blocks ?? []) if (!holds(hash)) faults.push(`block ${number} is gone`);
    for (const { hash, number } of heard.blocks) {
      if (holds(hash)) this.ownBlocks++;
      else faults.push(`block ${number}, which it made and others have, is gone`);
    }
    for (const [height, hash] of told?.final ?? []) {
      if (height > found.finalized || (found.chain.get(height) ?? hash) !== hash)
        faults.push(`block ${height} was final and is not`);
    }
    for (const [height, hash] of found.chain) {
      const final = this.#heads.final.get(height);
      // What the others made final meanwhile need not be here.
      if (height <= found.finalized && final !== undefined && final !== hash)
        faults.push(`another block ${height} is final here`);
    }
    for (const [height, hashes] of this.#heads.transactions) {
      if (height > found.finalized || !found.chain.has(height)) continue;
      if (hashes.some((hash) => found.transactions.get(hash) !== height)) {
        faults.push(`a transaction of the final block ${height} is lost`);
      }
    }
    for (const vote of heard.votes) {
      if (remembers(found, vote)) this.ownVotes++;
      else faults.push(`it sent a ${vote.kind} in set ${vote.setId}, round ${vote.round} that it does not know of`);
    }
    this.#before = found;
  }
}

/** What was in the last final blocks that anyone was told of is in them still, where a node that came back has them. */
async function checkShown(client: RpcClient, heads: Heads, faults: string[]): Promise<void> {
  const head = await client.call<string>('chain_getFinalizedHead');
  const final = Number((await client.call<{ number: string }>('chain_getHeader', head)).number);
  for (let height = Math.max(1, final - SHOWN_BLOCKS); height <= final; height++) {
    const told = heads.transactions.get(height);
    if (told === undefined) continue;
    const shown = new Set(await transactionsOf(client, heads.final.get(height)!));
    if (told.some((hash) => !shown.has(hash))) faults.push(`block ${height} is shown without a transaction it had`);
  }
}

export async function soakKill(options: SoakOptions): Promise<SoakResult> {
  const { times, validators, slotMs, accounts, say } = options;
  const began = performance.now();
  const home = await mkdtemp(join(tmpdir(), 'soak-'));
  const chain = join(home, 'chain.json');
  const spec = await specWith(validators, slotMs, accounts);
  await writeFile(chain, chainSpecJson(spec));
  const database = join(home, '0', 'chains', spec.id, 'db');
  const victim = `//${NAMES[0]![0]!.toUpperCase()}${NAMES[0]!.slice(1)}`;
  const witness = await Witness.start(spec, join(home, 'witness'), {
    grandpa: derive(victim, 'ed25519').publicKey,
    aura: derive(victim, 'sr25519').publicKey,
  });
  const heads = new Heads();
  const ledger = new Ledger(heads);
  const { faults } = ledger;
  const others: NodeProcess[] = [];
  const clients: RpcClient[] = [];
  const end = new AbortController();
  const loads: Promise<void>[] = [];
  const killed = { starting: 0, atRandom: 0, aroundWrites: 0 };
  const addresses: string[] = [witness.member.address];
  let kill = 0;
  let slowestStartMs = 0;
  let lastStartMs = 0;
  let load: Load | undefined;
  let running: NodeSpawn | undefined;
  const argsOf = (i: number): string[] => [
    ...['node', '--chain', chain, '--base-path', join(home, String(i)), `--${NAMES[i]}`, '--rpc-port', '0'],
    ...['--listen-addr', '/ip4/127.0.0.1/tcp/0', '--no-mdns', '--no-prometheus'],
    ...addresses.flatMap((each) => ['--bootnodes', each]),
  ];
  const loadFrom = async (client: RpcClient): Promise<Load> => {
    const version = await client.call<{ specVersion: number; transactionVersion: number }>('state_getRuntimeVersion');
    const genesisHash = fromHex(await client.call<string>('chain_getBlockHash', 0));
    return Load.prepare({ accounts, rate: options.rate, genesisHash, ...version });
  };

  /** One life of the node under test: what it told, if it came to that. */
  const live = async (plan: Plan): Promise<Told | undefined> => {
    running = spawnNode(argsOf(0), plan.type === 'write' ? importOf(plan.point) : []);
    const { child, ready, ended } = running;
    let told: Told | undefined;
    if (plan.type === 'starting') {
      ready.catch(() => {});
      await pause(Math.random() * Math.max(lastStartMs, 500));
    } else {
      const until = new AbortController();
      let loading: Promise<void> | undefined;
      const serving = ready.then(async (node) => {
        lastStartMs = node.startMs;
        slowestStartMs = Math.max(slowestStartMs, lastStartMs);
        const client = await RpcClient.connect(node.ws);
        await checkShown(client, heads, faults);
        told = await heads.follow(client);
        load ??= await loadFrom(client);
        loading = load.run(node.ws, 0, until.signal);
        if (others[0] !== undefined && loads.length === 0) loads.push(load.run(others[0].ws, 1, end.signal));
        return client;
      });
      // Longer where the machine is slow, so that it comes level with the others at times.
      const life = plan.type === 'random' ? Math.random() * Math.max(LONGEST_LIFE_MS, lastStartMs) : PATIENCE_MS;
      const gone = ended.then(() => undefined);
      // A node that dies by itself while it starts, at its first writes, has said nothing.
      const client = await Promise.race([serving.catch(() => undefined), gone]);
      if (client === undefined && plan.type === 'random')
        faults.push(`it does not start:\n${(await ready.catch(String)) as string}`);
      await Promise.race([pause(life, undefined, { ref: false }), gone]);
      if (plan.type === 'write' && child.signalCode === 'SIGKILL') killed.aroundWrites++;
      else killed.atRandom++;
      child.kill('SIGKILL');
      until.abort();
      await ended;
      await loading;
      client?.close();
    }
    child.kill('SIGKILL');
    await ended;
    if (child.exitCode !== null) faults.push(`it ended by itself with ${child.exitCode}`);
    if (plan.type === 'starting') killed.starting++;
    return told;
  };

  try {
    for (let i = 1; i < validators; i++) {
      const node = await spawnNode(argsOf(i)).ready;
      others.push(node);
      const client = await RpcClient.connect(node.ws);
      clients.push(client);
      await heads.follow(client);
      addresses.push(...(await client.call<string[]>('system_localListenAddresses')));
    }
    const last = began + 60_000 * (options.minutes ?? Number.POSITIVE_INFINITY);
    for (; kill < times && performance.now() < last; kill++) {
      const plan = planOf(kill);
      const told = await live(plan);
      const found = await inspect(database, ledger.readFrom);
      ledger.check(found, told, witness.heard());
      const how = plan.type === 'write' ? `${plan.point.what} ${plan.point.at}` : plan.type;
      say(
        `kill ${kill + 1} (${how}): best ${found?.best}, final ${found?.finalized}, ${witness.votes} votes and ${witness.blocks} blocks heard, ${faults.length} faults`,
      );
    }
    // It comes back once more, and takes part.
    running = spawnNode(argsOf(0));
    const node = await running.ready;
    const client = await RpcClient.connect(node.ws);
    const told = await heads.follow(client);
    const height = async (each: RpcClient): Promise<number> => {
      const hash = await each.call<string>('chain_getFinalizedHead');
      return Number((await each.call<{ number: string }>('chain_getHeader', hash)).number);
    };
    const goal = (await height(clients[0] ?? client)) + 3;
    const deadline = performance.now() + LEVEL_MS;
    while ((await height(client)) < goal) {
      if (performance.now() > deadline) {
        faults.push(`it does not come level within ${LEVEL_MS / 1_000} s`);
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
    const final = await client.call<string>('chain_getBlockHash', goal - 3);
    const prefix = toHex(Buffer.concat(REPORTS.map((each) => hashing.twox128(utf8(each)))));
    for (const each of clients) {
      if ((await each.call<string>('chain_getBlockHash', goal - 3)) !== final) faults.push('the nodes disagree');
      const offences = await each.call<string[]>('state_getKeysPaged', prefix, 10);
      if (offences.length > 0) faults.push(`${offences.length} offences are on the chain`);
    }
    end.abort();
    await Promise.all(loads);
    client.close();
    await node.stop();
    const whole = await inspect(database);
    ledger.check(whole, told, witness.heard());
    const { blocks } = witness.member.node.client;
    for (const [block, transfers] of load?.final ?? []) {
      const hash = asHash(fromHex(block));
      const header = blocks.header(hash);
      const body = new Set(blocks.body(hash)?.map((each) => toHex(each)));
      const here = header !== undefined && whole?.chain.get(header.number) === block;
      // Over RPC a transaction comes with its length before it.
      const missing = transfers.filter((each) => ![...body].some((found) => each.endsWith(found.slice(2))));
      if (!here || missing.length > 0) faults.push(`transfers that were final are not in block ${block}`);
    }
    for (const other of others) {
      if (/voted twice|two blocks in one slot|equivocation/.test(other.log()))
        faults.push('another validator saw an offence');
    }
    return {
      validators,
      kills: kill,
      killed,
      finalized: whole?.finalized ?? 0,
      blocks: witness.blocks,
      votes: witness.votes,
      ownBlocks: ledger.ownBlocks,
      ownVotes: ledger.ownVotes,
      sent: load?.sent ?? 0,
      finalTransactions: [...heads.transactions.values()].flat().length,
      finalTransfers: [...(load?.final.values() ?? [])].flat().length,
      slowestStartMs: Math.round(slowestStartMs),
      seconds: Math.round((performance.now() - began) / 1_000),
      faults: [...faults, ...heads.faults, ...witness.faults],
    };
  } finally {
    end.abort();
    for (const client of clients) client.close();
    running?.child.kill('SIGKILL');
    await running?.ended;
    await Promise.allSettled(others.map((each) => each.stop('SIGKILL')));
    await witness.member.stop();
    await rm(home, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      times: { type: 'string', default: '200' },
      minutes: { type: 'string' },
      validators: { type: 'string', default: '3' },
      slot: { type: 'string', default: '500' },
      rate: { type: 'string', default: '100' },
    },
  });
  const result = await soakKill({
    times: Number(values.times),
    ...(values.minutes !== undefined && { minutes: Number(values.minutes) }),
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
