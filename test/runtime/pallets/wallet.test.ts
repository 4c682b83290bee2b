/** The standard pallets as a wallet uses them: @polkadot/api, unmodified, with a node that runs. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ApiPromise, Keyring, WsProvider } from '@polkadot/api';
import { createKeyMulti, cryptoWaitReady, encodeAddress } from '@polkadot/util-crypto';
import t from 'tap';
import { presetSpec } from '../../../node/chain-spec/built-in.ts';
import { startNode } from '../../../node/service.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { until } from '../../support/until.ts';

const OPEN = 10n ** 18n;
const SESSION = 4;

async function start(basePath: string) {
  const stop = new AbortController();
  const warnings: string[] = [];
  const spec = presetSpec('dev', { slotDurationMs: 300 });
  if (spec.genesis.type !== 'config') throw new Error('presets are configurations');
  const config = {
    ...spec.genesis.config,
    sessionLength: SESSION,
    others: {
      governance: {
        depositBase: OPEN.toString(),
        votingPeriod: 6,
        enactmentDelay: 2,
        lockingPeriod: 2,
        quorum: 10_000_000,
      },
    },
  };
  const node = await startNode(
    {
      name: 'test',
      version: '0',
      spec: { ...spec, genesis: { type: 'config', config } },
      basePath,
      statePruning: 256,
      authority: '//Alice',
      rpc: { host: '127.0.0.1', port: 0, methods: 'unsafe' },
      log: (level, message) => {
        // Slots this short are missed on a busy machine.
        if ((level === 'warn' || level === 'error') && message !== 'a block took longer than its slot')
          warnings.push(message);
      },
    },
    stop.signal,
  );
  const close = async () => {
    stop.abort();
    await node.stopped;
  };
  return { node, warnings, close };
}

t.test('a wallet and the standard pallets', { timeout: 110_000 }, async (test) => {
  await cryptoWaitReady();
  const directory = await mkdtemp(join(tmpdir(), 'wallet-'));
  const running = await start(directory);
  const provider = new WsProvider(running.node.rpc.ws, false);
  await provider.connect();
  const api = await ApiPromise.create({ provider: provider as never, noInitWarn: true });
  test.teardown(async () => {
    await api.disconnect();
    await running.close();
    await rm(directory, { recursive: true, force: true });
  });
  const { utility, balances, multisig, proxy, sudo, system, convictionVoting, governance, treasury, session } =
    api.tx as Record<string, Record<string, (...args: unknown[]) => Call>>;
  type Call = ReturnType<typeof api.tx>;
  const ring = new Keyring({ type: 'sr25519' });
  const [alice, bob, charlie, stash] = ['//Alice', '//Bob', '//Charlie', '//Alice//stash'].map((uri) =>
    ring.addFromUri(uri),
  ) as [Pair, Pair, Pair, Pair];
  type Pair = ReturnType<typeof ring.addFromUri>;

  interface Sent {
    readonly names: string[];
    readonly number: number;
    readonly index: number;
    readonly data: (name: string) => string[];
    readonly fee: bigint;
  }
  const send = (call: Call, by: Pair) =>
    new Promise<Sent>((resolve, reject) => {
      call
        .signAndSend(by, async (result) => {
          const { status, events, dispatchError, isError, txIndex } = result;
          if (isError || dispatchError) {
            const known = dispatchError?.isModule ? api.registry.findMetaError(dispatchError.asModule).name : '';
            reject(new Error(`${known || dispatchError || status}`));
          }
          if (!status.isFinalized) return;
          const header = await api.rpc.chain.getHeader(status.asFinalized);
          const record = (name: string) =>
            events.find(({ event }) => `${event.section}.${event.method}` === name)?.event.data.map(String) ?? [];
          resolve({
            names: events.map(({ event }) => `${event.section}.${event.method}`),
            number: header.number.toNumber(),
            index: txIndex ?? -1,
            data: record,
            fee: BigInt(record('transactionPayment.TransactionFeePaid')[1] ?? -1),
          });
        })
        .catch(reject);
    });
  const freeOf = async (address: string) => {
    const info = (await api.query.system!.account!(address)) as unknown as { data: { free: bigint } };
    return BigInt(info.data.free.toString());
  };
  const person = (uri: string) => ring.addFromUri(uri).address;
  const block = (number: number) =>
    until(`block ${number}`, async () => (await api.rpc.chain.getHeader()).number.toNumber() >= number);

  await test.test('utility', async (sub) => {
    const [one, two] = [person('//One'), person('//Two')];
    const call = utility!.batchAll!([balances!.transferKeepAlive!(one, OPEN), balances!.transferKeepAlive!(two, OPEN)]);
    const estimate = BigInt((await call.paymentInfo(alice)).partialFee.toString());
    const sent = await send(call, alice);
    sub.ok(sent.names.includes('utility.BatchCompleted'));
    sub.ok(sent.fee > 0n && sent.fee <= estimate, 'the fee is at most what was announced');
    sub.same([await freeOf(one), await freeOf(two)], [OPEN, OPEN]);
    await sub.rejects(send(utility!.batchAll!([system!.remark!('0x'), sudo!.removeKey!()]), bob), /RequireSudo/);
    const cut = await send(utility!.batch!([system!.remark!('0x'), sudo!.removeKey!()]), bob);
    sub.equal(cut.data('utility.BatchInterrupted')[0], '1');
  });

  await test.test('multisig', async (sub) => {
    const all = [alice, bob, charlie].map(({ address }) => address).sort();
    const id = createKeyMulti(all, 2);
    const address = encodeAddress(id, 42);
    await send(balances!.transferKeepAlive!(address, 5n * OPEN), alice);
    const target = person('//Three');
    const inner = balances!.transferKeepAlive!(target, 2n * OPEN);
    const others = (who: Pair) => {
      const keys = [alice, bob, charlie].filter((each) => each !== who);
      return keys.sort((a, b) => Buffer.compare(a.publicKey, b.publicKey)).map((each) => each.address);
    };
    const weight = { refTime: 10n ** 10n, proofSize: 100_000n };
    const begun = await send(multisig!.approveAsMulti!(2, others(alice), null, inner.method.hash, weight), alice);
    const open = (await api.query.multisig!.multisigs!(address, inner.method.hash)) as unknown as {
      unwrap(): { when: { height: { toNumber(): number }; index: { toNumber(): number } }; depositor: unknown };
    };
    const { when, depositor } = open.unwrap();
    sub.same([when.height.toNumber(), when.index.toNumber()], [begun.number, begun.index]);
    sub.equal(`${depositor}`, alice.address);
    const done = await send(multisig!.asMulti!(2, others(bob), when, inner, weight), bob);
    sub.ok(done.names.includes('multisig.MultisigExecuted'));
    sub.equal(await freeOf(target), 2n * OPEN);
  });

  await test.test('proxy', async (sub) => {
    await send(proxy!.addProxy!(bob.address, 'NonTransfer', 0), charlie);
    const moved = await send(
      proxy!.proxy!(charlie.address, null, balances!.transferKeepAlive!(bob.address, OPEN)),
      bob,
    );
    sub.match(moved.data('proxy.ProxyExecuted')[0], /err/i);
    const fine = await send(proxy!.proxy!(charlie.address, 'NonTransfer', system!.remarkWithEvent!('0x12')), bob);
    sub.equal(fine.data('system.Remarked')[0], charlie.address);
    const [definitions] = (await api.query.proxy!.proxies!(charlie.address)) as unknown as [{ toJSON(): unknown }];
    sub.same(definitions.toJSON(), [{ delegate: bob.address, proxyType: 'NonTransfer', delay: 0 }]);
  });

  await test.test('sudo', async (sub) => {
    sub.equal(`${await api.query.sudo!.key!()}`, alice.address);
    const sent = await send(sudo!.sudo!(balances!.forceSetBalance!(person('//Four'), 7n * OPEN)), alice);
    sub.match(sent.data('sudo.Sudid')[0], /ok/i);
    sub.equal(sent.fee, 0n, 'the key pays nothing');
    sub.equal(await freeOf(person('//Four')), 7n * OPEN);
    await sub.rejects(send(sudo!.sudo!(system!.remark!('0x')), bob), /RequireSudo/);
  });

  await test.test('authors, and their share of the fees', async (sub) => {
    const before = await freeOf(stash.address);
    const { number } = await send(balances!.transferKeepAlive!(bob.address, OPEN), alice);
    const at = await api.at(await api.rpc.chain.getBlockHash(number));
    const events = (await at.query.system!.events!()) as unknown as {
      event: { method: string; data: { toString(): string }[] };
    }[];
    const shares = events
      .find(({ event }) => event.method === 'FeesShared')!
      .event.data.map((each) => BigInt(`${each}`));
    const [burnt, author, toTreasury] = shares as [bigint, bigint, bigint];
    const fee = burnt + author + toTreasury;
    sub.equal(author, (fee * 3n) / 10n);
    sub.equal(burnt, fee / 2n);
    sub.ok((await freeOf(stash.address)) >= before + author, 'the validator behind the Aura key has it');
  });

  await test.test('governance and treasury', async (sub) => {
    const target = person('//Five');
    const pot = `${api.consts.treasury!.potAccount}`;
    await send(balances!.transferKeepAlive!(pot, 100n * OPEN), alice);
    const proposed = await send(governance!.propose!(treasury!.spendLocal!(3n * OPEN, target)), bob);
    const proposal = proposed.data('governance.Proposed') as string[];
    const [id, ends] = [proposal[0], proposal.at(-1)];
    const aye = { Standard: { vote: { aye: true, conviction: 'Locked1x' }, balance: 5_000_000n * OPEN } };
    await send(convictionVoting!.vote!(id, aye), alice);
    const frozen = (await api.query.system!.account!(alice.address)) as unknown as { data: { frozen: bigint } };
    sub.equal(BigInt(frozen.data.frozen.toString()), 5_000_000n * OPEN);
    // It is decided, and enacted two blocks later, by itself.
    await block(Number(ends) + 3);
    sub.equal(await freeOf(target), 3n * OPEN);
    await send(convictionVoting!.removeVote!(0, id), alice);
    await send(convictionVoting!.unlock!(0, alice.address), bob);
    const thawed = (await api.query.system!.account!(alice.address)) as unknown as { data: { frozen: bigint } };
    sub.equal(BigInt(thawed.data.frozen.toString()), 0n);
  });

  await test.test('new session keys take over authoring and finality', async (sub) => {
    const before = Number(`${await api.query.grandpa!.currentSetId!()}`);
    const owner32 = toHex(stash.publicKey);
    const made = await provider.send<{ keys: string; proof: string }>('author_rotateKeysWithOwner', [owner32]);
    const { keys, proof } = made;
    const sent = await send(session!.setKeys!(keys, proof), stash);
    const owner = await api.query.session!.keyOwner!(['aura', keys.slice(0, 66)]);
    sub.equal(`${owner}`, stash.address);
    await block((Math.floor(sent.number / SESSION) + 3) * SESSION + 6);
    const authorities = (await api.query.aura!.authorities!()) as unknown as { toHex(): string }[];
    sub.same(
      authorities.map((each) => each.toHex()),
      [keys.slice(0, 66)],
    );
    sub.equal(Number(`${await api.query.grandpa!.currentSetId!()}`), before + 1);
    const number = (await api.rpc.chain.getHeader()).number.toNumber();
    await block(number + 4);
    const final = await api.rpc.chain.getHeader(await api.rpc.chain.getFinalizedHead());
    sub.ok(final.number.toNumber() >= number - 2, `block ${final.number} is final by the new voters`);
  });

  const at = await api.at(await api.rpc.chain.getFinalizedHead());
  const accounts = await at.query.system!.account!.entries();
  const sum = accounts.reduce((total, [, info]) => {
    const { free, reserved } = (info as unknown as { data: { free: bigint; reserved: bigint } }).data;
    return total + BigInt(free.toString()) + BigInt(reserved.toString());
  }, 0n);
  test.equal(sum, BigInt(`${await at.query.balances!.totalIssuance!()}`), 'no OPEN was made or lost');
  test.same(running.warnings, []);
});
