/**
 * smoldot, a light client that shares no code with this node, as a peer: it knows the chain spec and nothing else, warp syncs
 * over a WebSocket of libp2p, verifies seals and justifications, runs the runtime that stands under `:code`, and reads by proofs.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ApiPromise, WsProvider } from '@polkadot/api';
import { blake2AsHex, xxhashAsHex } from '@polkadot/util-crypto';
import { start } from 'smoldot';
import { genesisOf } from '../../../node/chain/genesis.ts';
import { presetSpec } from '../../../node/chain-spec/built-in.ts';
import { chainSpecJson, toRaw } from '../../../node/chain-spec/chain-spec.ts';
import { runtimeCode } from '../../../node/wasm-builder/cache.ts';
import { startNodeProcess } from '../../bench/support/node-process.ts';
import { check, main, people, UNIT, within } from '../check.mjs';

/** What it says on a machine with much else to do, and every ten seconds in which there is nothing to leap over. */
const UNAVOIDABLE = /has occupied the CPU|warp sync idle/;
/** A chain of the node's own making, with what stands under `:code` on every one of its chains. */
async function lightSpec() {
  const spec = presetSpec('local', { slotDurationMs: 1_000, authorities: ['Alice'] });
  const { state } = await genesisOf(spec, await runtimeCode());
  // smoldot warns of `protocolId`, which it does not use.
  return { ...toRaw(spec, () => state), protocolId: undefined };
}

async function rpc({ http }, method, ...params) {
  const response = await fetch(http, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  });
  const { result, error } = await response.json();
  if (error !== undefined) throw new Error(`${method}: ${error.message}`);
  return result;
}

/** JSON-RPC of a light client: answers by request, events of followed heads in the order they came. */
class Talk {
  #chain;
  #next = 1;
  #asked = new Map();
  events = [];
  #waiting = [];

  constructor(chain) {
    this.#chain = chain;
    void this.#listen();
  }

  async #listen() {
    for await (const text of this.#chain.jsonRpcResponses) {
      const message = JSON.parse(text);
      if (message.id !== undefined) this.#asked.get(message.id)?.(message);
      else this.events.push(message.params.result);
      this.#waiting = this.#waiting.filter(({ find, found }) => {
        const event = this.events.find(find);
        if (event !== undefined) found(event);
        return event === undefined;
      });
    }
  }

  ask(method, ...params) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, ({ result, error }) =>
        error === undefined ? resolve(result) : reject(new Error(`${method}: ${error.message}`)),
      );
      this.#chain.sendJsonRpc(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
    });
  }

  event(what, find) {
    const before = this.events.find(find);
    if (before !== undefined) return Promise.resolve(before);
    return within(new Promise((found) => this.#waiting.push({ find, found })), 90_000, what);
  }

  /** All that an operation gives, until it ends. */
  async operation(method, ...params) {
    const { result, operationId } = await this.ask(method, ...params);
    if (result !== 'started') throw new Error(`${method}: ${result}`);
    const last = await this.event(
      method,
      (each) => each.operationId === operationId && !/Items$|waitingForContinue/.test(each.event),
    );
    const items = this.events.filter((each) => each.operationId === operationId).flatMap(({ items = [] }) => items);
    return { ...last, items };
  }
}

const accountKey = ({ addressRaw }) =>
  ['System', 'Account'].reduce((key, name) => key + xxhashAsHex(name, 128).slice(2), '0x') +
  blake2AsHex(addressRaw, 128).slice(2) +
  Buffer.from(addressRaw).toString('hex');

async function follow(node, talk) {
  const { funder, own } = await people('smoldot');
  const [{ pair: heir }] = own;
  const following = await talk.ask('chainHead_v1_follow', true);
  const first = await talk.event('the first report', ({ event }) => event === 'initialized');
  const [at] = first.finalizedBlockHashes.slice(-1);
  const header = await talk.ask('chainHead_v1_header', following, at);
  check('it begins at a final block of the node', header.length > 2 && at === blake2AsHex(header, 256), at);
  const { number } = await rpc(node, 'chain_getHeader', at);
  check('it warp syncs, and does not begin at genesis', Number(number) > 0, number);
  check('it reads the version of the runtime', first.finalizedBlockRuntime.spec.specName === 'openledger');

  const finals = () => talk.events.filter(({ event }) => event === 'finalized').flatMap((e) => e.finalizedBlockHashes);
  const bests = () => talk.events.filter(({ event }) => event === 'bestBlockChanged').map((e) => e.bestBlockHash);
  await talk.event('six final blocks', () => finals().length >= 6 && bests().length >= 6);
  const heights = [];
  for (const hash of finals()) {
    const { number: height } = await rpc(node, 'chain_getHeader', hash);
    heights.push(Number(height));
    if ((await rpc(node, 'chain_getBlockHash', Number(height))) !== hash) heights.push(Number.NaN);
  }
  check(
    'it follows final heads, one after the other',
    heights.every((each, i) => i === 0 || each === heights[i - 1] + 1),
    heights,
  );
  const best = await Promise.all(bests().map((hash) => rpc(node, 'chain_getHeader', hash)));
  check('it follows best heads', best.every((each) => each !== null) && new Set(bests()).size >= 6);

  const last = finals().at(-1);
  const stored = async (type, key) => talk.operation('chainHead_v1_storage', following, last, [{ key, type }], null);
  const key = accountKey(funder);
  const account = await stored('value', key);
  check('it reads an account by proof', account.items[0]?.value === (await rpc(node, 'state_getStorage', key, last)));
  const nothing = await stored('value', `${key}00`);
  check('it is shown that there is nothing', nothing.event === 'operationStorageDone' && nothing.items.length === 0);
  const prefix = `0x${xxhashAsHex('System', 128).slice(2)}${xxhashAsHex('Account', 128).slice(2)}`;
  const all = await stored('descendantsValues', prefix);
  const keys = await rpc(node, 'state_getKeysPaged', prefix, 1_000, prefix, last);
  const found = new Map(all.items.map(({ key: each, value }) => [each, value]));
  check(
    'it reads all accounts by proof',
    keys.length > 3 && found.size === keys.length,
    `${found.size} ${keys.length}`,
  );
  for (const each of keys) {
    const value = await rpc(node, 'state_getStorage', each, last);
    if (found.get(each) !== value) check('each as the node has it', false, each);
  }
  const body = await talk.operation('chainHead_v1_body', following, last);
  const { block } = await rpc(node, 'chain_getBlock', last);
  check('it fetches bodies', `${body.value}` === `${block.extrinsics}`, JSON.stringify([body, block.extrinsics]));
  const call = await talk.operation('chainHead_v1_call', following, last, 'AuraApi_authorities', '0x');
  check('it calls the runtime', call.output === (await rpc(node, 'state_call', 'AuraApi_authorities', '0x', last)));

  const api = await ApiPromise.create({ provider: new WsProvider(node.ws), noInitWarn: true });
  const nonce = await api.rpc.system.accountNextIndex(funder.address);
  const signed = await api.tx.balances.transferKeepAlive(heir.address, UNIT).signAsync(funder, { nonce });
  await api.disconnect();
  const transaction = signed.toHex();
  await talk.ask('transaction_v1_broadcast', transaction);
  let containing;
  for (let i = 0; i < 60 && containing === undefined; i++) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    for (const hash of finals().slice(-8)) {
      if ((await rpc(node, 'chain_getBlock', hash)).block.extrinsics.includes(transaction)) containing = hash;
    }
  }
  check('its transaction is in a final block', containing !== undefined);
  const roles = (await rpc(node, 'system_peers')).map((each) => each.roles);
  check('the node knows it as a light client', roles.length === 1 && roles[0] === 'LIGHT', JSON.stringify(roles));
}

await main(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'smoldot-'));
  const spec = await lightSpec();
  const file = join(directory, 'spec.json');
  await writeFile(file, chainSpecJson(spec));
  const flags = [
    '--alice',
    '--validator',
    '--tmp',
    '--listen-addr',
    '/ip4/127.0.0.1/tcp/0/ws',
    '--no-mdns',
    '--rpc-port',
    '0',
    '--rpc-methods',
    'unsafe',
    '--no-prometheus',
    ...(process.env.VERBOSE === undefined ? [] : ['--log', 'debug']),
  ];
  const node = await startNodeProcess(['node', '--chain', file, ...flags]);
  const said = [];
  const client = start({
    maxLogLevel: process.env.VERBOSE === undefined ? 3 : 5,
    logCallback: (level, target, message) => {
      if (level <= 2 && !UNAVOIDABLE.test(message)) said.push(`${target}: ${message}`);
      if (process.env.VERBOSE !== undefined) process.stdout.write(`    ${level} ${target} ${message.slice(0, 300)}\n`);
    },
  });
  try {
    const final = async () =>
      Number((await rpc(node, 'chain_getHeader', await rpc(node, 'chain_getFinalizedHead'))).number);
    // Something to leap over.
    for (let i = 0; i < 600 && (await final()) < 40; i++) await new Promise((resolve) => setTimeout(resolve, 200));
    const addresses = await rpc(node, 'system_localListenAddresses');
    const bootNodes = addresses.filter((each) => each.includes('/ws/'));
    check('the node listens for light clients', bootNodes.length > 0, addresses.join(' '));
    const chain = await client.addChain({ chainSpec: chainSpecJson({ ...spec, bootNodes }) });
    const talk = new Talk(chain);
    await follow(node, talk);
    check('smoldot has nothing to complain of', said.length === 0, said.slice(0, 5).join('; '));
    const complaints = node.log().match(/.*"level":[456]0.*/g) ?? [];
    const grave = complaints.filter((line) => !/took longer than its slot/.test(line));
    check('nor has the node', grave.length === 0, grave.slice(0, 5).join('; '));
  } finally {
    if (process.env.VERBOSE !== undefined) process.stdout.write(node.log());
    await client.terminate();
    await node.stop();
    await rm(directory, { recursive: true, force: true });
  }
}, 300_000);
