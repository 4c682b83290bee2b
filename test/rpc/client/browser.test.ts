/** The client in a browser: bundled without a word of Node, and run where nothing but the web's own things are there. */
import { createContext, Script } from 'node:vm';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import t from 'tap';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { startLedger } from '../../main-job/support.ts';

const CLIENT = `
  export { Ledger } from './rpc/client/ledger.ts';
  export * as pallets from './rpc/client/pallets.ts';
  export { prepareBatch } from './rpc/client/batches.ts';
  export * from './rpc/client/datanets.ts';
  export * from './rpc/client/models.ts';
  export * from './rpc/client/training-config.ts';
  export { PaidQuestions } from './rpc/client/paid-questions.ts';
  export * from './rpc/client/rewards.ts';
  export * from './rpc/client/completions.ts';
`;
/** For pages that have no wallet to sign. */
const KEYS = `export { LocalKey } from './rpc/client/keys.ts';`;
/** What is sent to a browser at most, compressed. */
const CLIENT_KB = 150;
const KEYS_KB = 60;

async function bundle(contents: string, globalName: string): Promise<{ readonly text: string; readonly kB: number }> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: new URL('../../..', import.meta.url).pathname, loader: 'ts' },
    ...{ bundle: true, write: false, minify: true },
    ...{ platform: 'browser', format: 'iife', globalName, target: 'es2022', logLevel: 'silent' },
  });
  const { text } = outputFiles[0]!;
  return { text, kB: Math.round(gzipSync(text).length / 1_000) };
}

t.test('the client runs where there is no Node', async (test) => {
  const [client, keys] = [await bundle(CLIENT, 'openledger'), await bundle(KEYS, 'keys')];
  test.ok(client.kB < CLIENT_KB, `the client: ${client.kB} kB compressed`);
  test.ok(keys.kB < KEYS_KB, `keys: ${keys.kB} kB compressed`);

  const { node } = await startLedger(test, { slotDurationMs: 300 });
  const page = {
    WebSocket,
    fetch,
    TextEncoder,
    TextDecoder,
    crypto,
    setTimeout,
    clearTimeout,
    setInterval,
    clearInterval,
  };
  const context = createContext({ ...page, AbortController, URL });
  const { Ledger, LocalKey, pallets } = new Script(
    `${client.text};${keys.text};({ ...openledger, ...keys })`,
  ).runInContext(context) as {
    Ledger: typeof import('../../../rpc/client/ledger.ts')['Ledger'];
    LocalKey: typeof import('../../../rpc/client/keys.ts')['LocalKey'];
    pallets: typeof import('../../../rpc/client/pallets.ts');
  };
  const ledger = await Ledger.connect(node.rpc.ws);
  test.teardown(() => ledger.close());
  const alice = LocalKey.fromUri('//Alice');
  const { system } = pallets;
  test.ok((await ledger.read(system.store.Account, alice.account)).data.free > 0n);
  const made = await ledger.submit(alice, system.calls.remarkWithEvent, { remark: Uint8Array.of(1, 2) });
  test.equal(toHex(made.event(system.events.Remarked).sender), toHex(alice.account));
});
