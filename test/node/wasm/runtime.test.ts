/** The runtime in WebAssembly is the runtime: every method and every block comes out the same, to the byte. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { newRuntime, writeGenesis } from '../../../node/chain/genesis.ts';
import { runtimeHost } from '../../../node/chain/runtime-host.ts';
import { presetSpec } from '../../../node/chain-spec/built-in.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { createSignatures } from '../../../node/crypto/signatures.ts';
import { KeySigner } from '../../../node/keystore/key-signer.ts';
import { Overlay } from '../../../node/state/overlay.ts';
import { inMemory, Trie } from '../../../node/state/trie.ts';
import { bundleGuest } from '../../../node/wasm-builder/bundle.ts';
import { runtimeCode } from '../../../node/wasm-builder/cache.ts';
import { openCode } from '../../../node/wasm-executor/code.ts';
import { WasmExecutionError, WasmInstance } from '../../../node/wasm-executor/executor.ts';
import { callOf, toAccount } from '../../../rpc/client/call.ts';
import { balances, system, utility } from '../../../rpc/client/pallets.ts';
import { signTransaction } from '../../../rpc/client/transaction.ts';
import type { Host } from '../../../runtime/host.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { block as blockCodec } from '../../../runtime/primitives/header.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import { openChain } from '../../support/own-chain.ts';

const OPEN = 10n ** 18n;
const hashing = createHashing();
const signatures = await createSignatures();
const runtime = newRuntime();
const blob = await runtimeCode();
const code = openCode(blob);
const spec = presetSpec('dev');

function genesisHost(): Host {
  const overlay = new Overlay(new Trie(hashing.blake2_256, inMemory), undefined);
  const host = runtimeHost(overlay, hashing, signatures, () => {});
  writeGenesis(host, runtime, spec.genesis, blob);
  return host;
}

/** What a call comes to: its output, or what it throws. */
function outcome(run: () => Uint8Array): string {
  try {
    return toHex(run());
  } catch (problem) {
    if (problem instanceof WasmExecutionError && problem.code !== 'PANICKED') throw problem;
    // A panic names the error's class in front of what it says.
    return `throws ${(problem as Error).message.replace(/^\w*Error: /, '')}`;
  }
}

t.test('every method of every API gives the same, for good and for bad parameters', async (test) => {
  test.same(code.version, runtime.version, 'the code says which version it is without being run');
  const parameters = [[], [14, 0, 0, 0], new Array(32).fill(1)].map((each) => Uint8Array.from(each));
  let compared = 0;
  for (const api of runtime.apis) {
    for (const name of Object.keys(api.methods)) {
      for (const each of parameters) {
        const method = `${api.name}_${name}`;
        const native = outcome(() => runtime.call(genesisHost(), method, each));
        const wasm = outcome(() => new WasmInstance(code, genesisHost()).call(method, each));
        if (native !== wasm) test.equal(wasm.slice(0, 200), native.slice(0, 200), `${method} of ${each.length} bytes`);
        compared++;
      }
    }
  }
  test.ok(compared > 100, `${compared} calls compared`);
});

t.test('blocks come out the same: signatures of three kinds, batches, failures', async (test) => {
  const directory = await mkdtemp(join(tmpdir(), 'wasm-'));
  const own = await openChain(spec, directory);
  test.teardown(async () => {
    await own.close();
    await rm(directory, { recursive: true, force: true });
  });
  const { blocks } = own.chain;
  const { genesisHash } = blocks.info();
  const alice = KeySigner.fromUri('//Alice', hashing);
  const edwin = KeySigner.fromUri('//Edwin', hashing, 'ed25519');
  const ecki = KeySigner.fromUri('//Ecki', hashing, 'ecdsa');
  // Accounts begin with the number of the block that makes them.
  const nonces = new Map<KeySigner, number>([edwin, ecki].map((each) => [each, 1]));
  const sign = async (signer: KeySigner, call: ReturnType<typeof callOf>): Promise<Uint8Array> => {
    const nonce = nonces.get(signer) ?? 0;
    nonces.set(signer, nonce + 1);
    const terms = { nonce, era: { type: 'Immortal' }, eraBirth: genesisHash, genesisHash, tip: 0n } as const;
    const sent = await signTransaction(hashing, signer, call.encode(), terms as never);
    // Blocks hold extrinsics without the length in front.
    return sent.subarray(sent[0]! % 4 === 0 ? 1 : sent[0]! % 4 === 1 ? 2 : 4);
  };
  const pay = (to: KeySigner, value: bigint) =>
    callOf(balances.calls.transferAllowDeath, { dest: toAccount(to.account), value });
  const rounds = [
    async () => [await sign(alice, pay(edwin, 100n * OPEN)), await sign(alice, pay(ecki, 100n * OPEN))],
    async () => [
      await sign(edwin, pay(ecki, 3n * OPEN)),
      await sign(ecki, pay(alice, 2n * OPEN)),
      await sign(alice, pay(edwin, 10n ** 30n)),
    ],
    async () => [
      await sign(
        alice,
        callOf(utility.calls.batch, {
          calls: [pay(edwin, OPEN), callOf(system.calls.remark, { remark: Uint8Array.of(1) }), pay(ecki, 10n ** 30n)],
        }),
      ),
    ],
    async () => await Promise.all(Array.from({ length: 40 }, (_, i) => sign(alice, pay(edwin, BigInt(i + 1) * OPEN)))),
  ];

  const [native, wasm] = [genesisHost(), genesisHost()];
  let slot = 500_000_000;
  for (const round of rounds) {
    const made = await own.propose(slot++, await round());
    test.equal((await own.chain.import(made, { origin: 'own' })).type, 'imported');
    const logs = made.header.digest.logs.slice(0, -1);
    const parameters = encode(blockCodec, { ...made, header: { ...made.header, digest: { logs } } });
    runtime.call(native, 'Core_execute_block', parameters);
    new WasmInstance(code, wasm).call('Core_execute_block', parameters);
    const root = toHex(made.header.stateRoot);
    test.equal(toHex(native.storageRoot(1)), root);
    test.equal(toHex(wasm.storageRoot(1)), root, `block ${made.header.number} of ${made.extrinsics.length} extrinsics`);
  }
});

t.test('the same sources give the same script', async (test) => {
  const [first, second] = await Promise.all([bundleGuest(), bundleGuest()]);
  test.equal(first, second);
  test.notMatch(first, process.cwd(), 'nothing of this machine is in it');
});
