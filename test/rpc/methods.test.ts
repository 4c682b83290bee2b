/** Every method that clients are known to call, against a node that runs; what it says is checked against what it keeps. */

import { Keyring } from '@polkadot/keyring';
import { Metadata, TypeRegistry } from '@polkadot/types';
import { cryptoWaitReady } from '@polkadot/util-crypto';
import t, { type Test } from 'tap';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { startNode } from '../../node/service.ts';
import { verifyProof } from '../../node/state/proof.ts';
import { fromHex, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { bytes, decode, option, u32, vec } from '../../runtime/primitives/scale/codec.ts';
import { isOwnershipProof, sessionKeys } from '../../runtime/primitives/session-keys.ts';
import { asAccountId } from '../../runtime/primitives/types.ts';
import { RpcClient } from '../bench/support/rpc-client.ts';
import { encodingOf } from '../fuzz/inputs.ts';
import { apis, outer } from '../fuzz/ledger.ts';
import { Random } from '../fuzz/random.ts';

const { blake2_256, twox128 } = createHashing();

/** Those of reference lists of @polkadot/api, polkadot-api, dedot, subsquid and sidecar. */
const EXPECTED = `account_nextIndex archive_v1_body archive_v1_call archive_v1_finalizedHeight archive_v1_genesisHash
archive_v1_hashByHeight archive_v1_header archive_v1_stopStorage archive_v1_storage author_hasKey author_hasSessionKeys
author_insertKey author_pendingExtrinsics author_removeExtrinsic author_rotateKeys author_rotateKeysWithOwner author_submitAndWatchExtrinsic
author_submitExtrinsic author_unwatchExtrinsic chainHead_v1_body chainHead_v1_call chainHead_v1_continue
chainHead_v1_follow chainHead_v1_header chainHead_v1_stopOperation chainHead_v1_storage chainHead_v1_unfollow
chainHead_v1_unpin chainSpec_v1_chainName chainSpec_v1_genesisHash chainSpec_v1_properties chain_getBlock
chain_getBlockHash chain_getFinalizedHead chain_getHeader chain_subscribeAllHeads chain_subscribeFinalizedHeads
chain_subscribeNewHead chain_subscribeNewHeads chain_unsubscribeAllHeads chain_unsubscribeFinalizedHeads
chain_unsubscribeNewHead chain_unsubscribeNewHeads grandpa_proveFinality grandpa_roundState
grandpa_subscribeJustifications grandpa_unsubscribeJustifications payment_queryFeeDetails payment_queryInfo rpc_methods
state_call state_getKeys state_getKeysPaged state_getMetadata state_getPairs state_getReadProof state_getRuntimeVersion
state_getStorage state_getStorageAt state_getStorageHash state_getStorageSize state_queryStorage state_queryStorageAt
state_subscribeRuntimeVersion state_subscribeStorage state_unsubscribeRuntimeVersion state_unsubscribeStorage
system_accountNextIndex system_addReservedPeer system_chain system_chainType system_dryRun system_health
system_localListenAddresses system_localPeerId system_name system_nodeRoles system_peers system_properties
system_removeReservedPeer system_reservedPeers system_syncState system_version transactionWatch_v1_submitAndWatch
transactionWatch_v1_unwatch transaction_v1_broadcast transaction_v1_stop`.split(/\s+/);

async function start(test: Test, authors = true) {
  const stop = new AbortController();
  const faults: string[] = [];
  const node = await startNode(
    {
      name: 'tested',
      version: '1.2.3',
      spec: presetSpec('dev', { slotDurationMs: 400 }),
      basePath: undefined,
      statePruning: 256,
      authority: authors ? '//Alice' : undefined,
      rpc: { host: '127.0.0.1', port: 0, methods: 'auto' },
      log: (level, message, fields) => {
        if (level === 'error') faults.push(`${message} ${JSON.stringify(fields)}`);
      },
    },
    stop.signal,
  );
  const rpc = await RpcClient.connect(node.rpc.ws);
  test.teardown(async () => {
    rpc.close();
    stop.abort();
    await node.stopped;
    if (faults.length > 0) throw new Error(`this node's fault: ${faults.join('; ')}`);
  });
  return { node, rpc, call: (method: string, ...params: unknown[]) => rpc.call<unknown>(method, ...params) };
}

interface HeaderJson {
  readonly number: string;
  readonly parentHash: string;
  readonly stateRoot: string;
  readonly digest: { readonly logs: readonly string[] };
}

/** The first few notifications of a subscription. */
async function heard<T>(rpc: RpcClient, count: number, method: string, ...params: unknown[]): Promise<T[]> {
  const seen: T[] = [];
  let enough = (): void => {};
  const done = new Promise<void>((resolve) => {
    enough = resolve;
  });
  await rpc.subscribe<T>(method, params, (each) => {
    seen.push(each);
    if (seen.length === count) enough();
  });
  await done;
  return seen.slice(0, count);
}

const codeOf = (asked: Promise<unknown>): Promise<number> =>
  asked.then(
    () => 0,
    ({ code }: { code: number }) => code,
  );

const itemKey = (pallet: string, item: string) => Buffer.concat([twox128(utf8(pallet)), twox128(utf8(item))]);

t.test('legacy methods', { timeout: 100_000 }, async (test) => {
  await cryptoWaitReady();
  const { node, rpc, call } = await start(test);
  const { methods } = (await call('rpc_methods')) as { methods: string[] };
  test.same(
    EXPECTED.filter((name) => !methods.includes(name)),
    [],
    'none is missing',
  );

  const heads = (await heard(rpc, 4, 'chain_subscribeNewHead')) as HeaderJson[];
  test.ok(heads.every((each, i) => i === 0 || Number(each.number) > Number(heads[i - 1]!.number)));
  const finals = (await heard(rpc, 3, 'chain_subscribeFinalizedHeads')) as HeaderJson[];
  test.ok(finals.every((each, i) => i === 0 || Number(each.number) === Number(finals[i - 1]!.number) + 1));
  await heard(rpc, 2, 'chain_subscribeAllHeads');

  const final = (await call('chain_getFinalizedHead')) as string;
  const header = (await call('chain_getHeader', final)) as HeaderJson;
  const number = Number(header.number);
  test.equal(await call('chain_getBlockHash', number), final);
  test.equal(await call('chain_getBlockHash', header.number), final, 'heights in hex');
  test.same(await call('chain_getBlockHash', [number, 9_999_999]), [final, null]);
  const genesis = (await call('chain_getBlockHash', 0)) as string;
  test.equal(genesis, toHex(node.client.blocks.info().genesisHash));
  const block = (await call('chain_getBlock', final)) as {
    block: { header: HeaderJson; extrinsics: string[] };
    justifications: unknown;
  };
  test.same(block.block.header, header);
  test.ok(block.block.extrinsics.length >= 1);
  test.equal(await call('chain_getHeader', `0x${'7'.repeat(64)}`), null);
  test.equal(await call('chain_getBlock', `0x${'7'.repeat(64)}`), null);
  const unknown = `0x${'7'.repeat(64)}`;
  for (const [method, ...params] of [
    ['state_getStorage', '0x00', unknown],
    ['state_getMetadata', unknown],
    ['state_getRuntimeVersion', unknown],
    ['state_call', 'Core_version', '0x', unknown],
    ['state_getKeysPaged', '0x', 10, null, unknown],
    ['state_getReadProof', ['0x00'], unknown],
  ] as [string, ...unknown[]][]) {
    await test.rejects(call(method, ...params), { code: 4003, message: / not found| not here/ }, method);
  }

  // State: what is read one way is what is read another way, and what a proof shows.
  const state = node.client.states.at(node.client.blocks.hashOf(number)!)!;
  const accounts = toHex(itemKey('System', 'Account'));
  const keys = (await call('state_getKeysPaged', accounts, 100, null, final)) as string[];
  test.ok(keys.length >= 12 && keys.every((key) => key.startsWith(accounts)));
  const pages: string[] = [];
  for (let page = (await call('state_getKeysPaged', accounts, 5, null, final)) as string[]; page.length > 0; ) {
    pages.push(...page);
    page = (await call('state_getKeysPaged', accounts, 5, page.at(-1), final)) as string[];
  }
  test.same(pages, keys, 'the same in pages');
  test.same(await call('state_getKeys', accounts, final), keys);
  const pairs = (await call('state_getPairs', accounts, final)) as [string, string][];
  const values = (await Promise.all(keys.map((key) => call('state_getStorage', key, final)))) as string[];
  test.same(
    pairs,
    keys.map((key, i) => [key, values[i]]),
  );
  test.same(
    values,
    keys.map((key) => toHex(state.get(fromHex(key))!)),
  );
  const [first] = keys as [string];
  const value = fromHex(values[0]!);
  test.equal(await call('state_getStorageSize', first, final), value.length);
  test.equal(await call('state_getStorageHash', first, final), toHex(blake2_256(value)));
  test.same(await call('state_queryStorageAt', [first, '0x00'], final), [
    {
      block: final,
      changes: [
        [first, toHex(value)],
        ['0x00', null],
      ],
    },
  ]);
  const now = toHex(itemKey('Timestamp', 'Now'));
  const history = (await call('state_queryStorage', [now, first], genesis, final)) as {
    block: string;
    changes: unknown[];
  }[];
  test.equal(history.length, number + 1, 'time is another in every block');
  const missing = toHex(itemKey('No', 'Where'));
  const { proof, at } = (await call('state_getReadProof', [first, now, missing], final)) as {
    proof: string[];
    at: string;
  };
  test.equal(at, final);
  const shown = verifyProof(
    blake2_256,
    fromHex(header.stateRoot),
    proof.map(fromHex),
    [first, now, missing].map(fromHex),
  );
  test.same(
    shown.map((each) => each && toHex(each)),
    [toHex(value), await call('state_getStorage', now, final), undefined],
  );
  const followed = (await heard(rpc, 3, 'state_subscribeStorage', [now, missing])) as {
    block: string;
    changes: [string, string | null][];
  }[];
  test.same(
    followed[0]!.changes.map(([key]) => key),
    [now, missing],
    'all of them first',
  );
  test.same(
    followed.slice(1).map(({ changes }) => changes.map(([key]) => key)),
    [[now], [now]],
    'then what changes',
  );
  await test.rejects(call('state_getKeysPaged', '0x', 1_001), { code: 4002 });

  // The node and its chain.
  const version = (await call('state_getRuntimeVersion')) as { specName: string; apis: [string, number][] };
  test.same(await heard(rpc, 1, 'state_subscribeRuntimeVersion'), [version]);
  test.same(
    [
      version.specName,
      await call('system_chain'),
      await call('system_chainType'),
      await call('system_name'),
      await call('system_version'),
    ],
    ['openledger', 'OpenLedger Development', 'Development', 'tested', '1.2.3'],
  );
  test.same(await call('system_properties'), { ss58Format: 42, tokenDecimals: 18, tokenSymbol: 'OPEN' });
  test.same(await call('system_health'), { peers: 0, isSyncing: false, shouldHavePeers: false });
  test.same(await call('system_nodeRoles'), ['Authority']);
  test.same(
    [await call('system_peers'), await call('system_localListenAddresses'), await call('system_reservedPeers')],
    [[], [], []],
  );
  test.match(await call('system_syncState'), { startingBlock: Number, currentBlock: Number, highestBlock: Number });
  await test.rejects(call('system_addReservedPeer', '/ip4/127.0.0.1/tcp/1'), { code: 2000 });
  const [justification] = (await heard(rpc, 1, 'grandpa_subscribeJustifications')) as [string];
  test.ok(fromHex(justification).length > 100);
  test.type(await call('grandpa_proveFinality', number), 'string');
  test.match(await call('grandpa_roundState'), {
    setId: 0,
    best: { round: Number, totalWeight: 1, thresholdWeight: 1 },
  });
  await test.rejects(call('grandpa_proveFinality', 9_999_999), { code: 4 });

  // Keys of the node.
  const session = (await call('author_rotateKeys')) as string;
  test.equal(session.length, 2 + 2 * 64);
  test.equal(await call('author_hasKey', session.slice(0, 66), 'aura'), true);
  test.equal(await call('author_hasKey', session.slice(0, 66), 'gran'), false);
  test.equal(await call('author_hasSessionKeys', session), true);
  const owner = asAccountId(new Uint8Array(32).fill(7));
  const made = (await call('author_rotateKeysWithOwner', toHex(owner))) as { keys: string; proof: string };
  const own = decode(sessionKeys, fromHex(made.keys));
  test.equal(isOwnershipProof(await createSignatures(), own, owner, fromHex(made.proof)), true);
  test.equal(await call('author_hasSessionKeys', made.keys), true);
  await test.rejects(call('author_rotateKeysWithOwner', '0x00'), { code: -32602 });
  const pair = new Keyring({ type: 'sr25519' }).addFromUri('//Somebody');
  await call('author_insertKey', 'aura', '//Somebody', toHex(pair.publicKey));
  test.equal(await call('author_hasKey', toHex(pair.publicKey), 'aura'), true);
  await test.rejects(call('author_insertKey', 'aura', '//Other', toHex(pair.publicKey)), { code: 1040 });
});

t.test('transactions: statuses, and the codes of refusals', { timeout: 100_000 }, async (test) => {
  await cryptoWaitReady();
  const { rpc, call } = await start(test);
  const registry = new TypeRegistry();
  const metadata = (await call('state_getMetadata')) as `0x${string}`;
  test.equal(metadata.slice(0, 12), '0x6d6574610e', 'version 14');
  registry.setMetadata(new Metadata(registry, metadata));
  const genesisHash = await call('chain_getBlockHash', 0);
  const ring = new Keyring({ type: 'sr25519', ss58Format: 42 });
  const [alice, nobody] = [ring.addFromUri('//Alice'), ring.addFromUri('//Nobody')];
  const { specVersion, transactionVersion } = (await call('state_getRuntimeVersion')) as {
    specVersion: number;
    transactionVersion: number;
  };
  const sign = (
    nonce: number,
    options: { by?: typeof alice; tip?: number; genesisHash?: string; text?: string } = {},
  ) => {
    const extrinsic = registry.createType('Extrinsic', { callIndex: [0, 0], args: [options.text ?? '0x01'] });
    const by = options.by ?? alice;
    extrinsic.sign(by, {
      blockHash: options.genesisHash ?? genesisHash,
      genesisHash: options.genesisHash ?? genesisHash,
      era: '0x00',
      nonce,
      tip: options.tip ?? 0,
      runtimeVersion: { specVersion, transactionVersion },
    } as never);
    return extrinsic;
  };
  const submit = (extrinsic: ReturnType<typeof sign>) =>
    call('author_submitExtrinsic', extrinsic.toHex()) as Promise<string>;

  const first = sign(0);
  test.equal(await submit(first), first.hash.toHex());
  test.equal(await call('system_accountNextIndex', alice.address), 1, 'what waits counts');
  // Where nobody makes blocks, what waits goes on waiting.
  const idle = await start(test, false);
  await idle.call('author_submitExtrinsic', first.toHex());
  await test.rejects(idle.call('author_submitExtrinsic', first.toHex()), { code: 1013 });
  await test.rejects(idle.call('author_submitExtrinsic', sign(0, { text: '0x02' }).toHex()), { code: 1014 });
  test.same(await idle.call('author_pendingExtrinsics'), [first.toHex()]);
  test.equal(await idle.call('system_accountNextIndex', alice.address), 1, 'what waits counts');
  const {
    weight,
    class: kind,
    partialFee,
  } = (await call('payment_queryInfo', first.toHex())) as { weight: object; class: string; partialFee: string };
  test.match(
    { weight, kind, partialFee },
    { weight: { ref_time: Number, proof_size: Number }, kind: 'normal', partialFee: /^[0-9]+$/ },
  );
  const { inclusionFee } = (await call('payment_queryFeeDetails', first.toHex())) as {
    inclusionFee: Record<string, string>;
  };
  test.equal(
    Object.values(inclusionFee).reduce((sum, each) => sum + BigInt(each), 0n),
    BigInt(partialFee),
  );

  const statuses: unknown[] = [];
  const watched = sign(1, { tip: 5 });
  const ended = new Promise<void>((resolve, reject) => {
    const listener = (status: unknown) => {
      statuses.push(status);
      if (typeof status === 'object' && status !== null && 'finalized' in status) resolve();
    };
    rpc.subscribe('author_submitAndWatchExtrinsic', [watched.toHex()], listener).catch(reject);
  });
  await ended;
  test.same(
    statuses.map((each) => (typeof each === 'string' ? each : Object.keys(each as object)[0])),
    ['ready', 'inBlock', 'finalized'],
  );
  const { finalized } = statuses.at(-1) as { finalized: string };
  const { block } = (await call('chain_getBlock', finalized)) as { block: { extrinsics: string[] } };
  test.ok(block.extrinsics.includes(watched.toHex()));

  await test.rejects(submit(sign(0)), { code: 1010, data: 'Transaction is outdated' });
  await test.rejects(submit(sign(0, { by: nobody })), { code: 1010, data: /^Inability to pay some fees/ });
  await test.rejects(submit(sign(2, { genesisHash: `0x${'1'.repeat(64)}` })), {
    code: 1010,
    data: 'Transaction has a bad signature',
  });
  const banned = sign(1);
  await test.rejects(submit(banned), { code: 1010 });
  await test.rejects(submit(banned), { code: 1012 });
  for (const garbage of ['0x', '0x00', '0x0400', '0xffffffff', `0x${'ab'.repeat(200)}`]) {
    test.ok([1001, 1010].includes(await codeOf(call('author_submitExtrinsic', garbage))), garbage);
  }
  const future = (await heard<string>(rpc, 1, 'author_submitAndWatchExtrinsic', sign(9).toHex()))[0];
  test.equal(future, 'future');
  test.equal(await codeOf(call('payment_queryInfo', '0x')), 1001);
  test.equal(await codeOf(call('payment_queryInfo', '0x0400')), 1);
  test.same(await call('author_removeExtrinsic', [{ hash: sign(9).hash.toHex() }]), [], 'only what is ready is named');
  const dry = (await call('system_dryRun', sign(2).toHex())) as string;
  test.equal(dry, '0x0000');
});

/** What answers nothing but to a block under construction, or a whole block or extrinsic, which chance does not make. */
const NEED_A_BLOCK = new Set([
  'Core_execute_block',
  'Core_initialize_block',
  'BlockBuilder_finalize_block',
  'BlockBuilder_check_inherents',
  'TransactionPaymentApi_query_info',
  'TransactionPaymentApi_query_fee_details',
]);

t.test('state_call: every method that the metadata declares', { timeout: 100_000 }, async (test) => {
  const { call } = await start(test);
  const versions = decode(vec(u32), fromHex((await call('state_call', 'Metadata_metadata_versions', '0x')) as string));
  test.same(versions, [14, 15, 16]);
  const raw = fromHex((await call('state_call', 'Metadata_metadata_at_version', '0x0f000000')) as string);
  const metadata = decode(option(bytes()), raw)!;
  const declared = new Metadata(new TypeRegistry(), toHex(metadata)).asV15.apis;
  const named = declared.flatMap(({ name, methods }) => methods.map((each) => `${name}_${each.name}`)).sort();
  test.same(named, apis.flatMap(({ name, methods }) => Object.keys(methods).map((each) => `${name}_${each}`)).sort());
  const { apis: listed } = (await call('state_getRuntimeVersion')) as { apis: [string, number][] };
  test.equal(listed.length, declared.length);
  let answered = 0;
  for (const { name, methods } of apis) {
    for (const [each, { inputs, output }] of Object.entries(methods)) {
      const what = `${name}_${each}`;
      let error = '';
      for (let attempt = 0; attempt < 8; attempt++) {
        const random = new Random('state_call', what, attempt);
        const data = Buffer.concat(inputs.map(([, codec]) => encodingOf(codec.type, random, outer)));
        try {
          const answer = fromHex((await call('state_call', what, toHex(data))) as string);
          decode(output, answer);
          answered++;
          error = '';
          break;
        } catch (problem) {
          const { code, message } = problem as { code: number; message: string };
          if (code !== 4003 || /not found/.test(message)) throw problem;
          error = message;
        }
      }
      if (error !== '' && !NEED_A_BLOCK.has(what)) test.fail(`${what}: ${error}`);
    }
  }
  test.ok(answered >= named.length - NEED_A_BLOCK.size, `${answered} of ${named.length} answered`);
  await test.rejects(call('state_call', 'Core_nothing', '0x'), { code: 4003, message: /not found/ });
  await test.rejects(call('state_call', 'AccountNonceApi_account_nonce', '0x00'), { code: 4003 });
  await test.rejects(call('state_call', 'AccountNonceApi_account_nonce', `0x${'00'.repeat(33)}`), { code: 4003 });
});
