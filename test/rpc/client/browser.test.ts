/** The client in a browser: bundled without a word of Node, and run where nothing but the web's own things are there. */
import { createContext, Script } from 'node:vm';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import t from 'tap';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { startLedger } from '../../main-job/support.ts';

const ENTRY = `
  export { Ledger } from './rpc/client/ledger.ts';
  export * as pallets from './rpc/client/pallets.ts';
  export { prepareBatch } from './rpc/client/batches.ts';
  export * from './rpc/client/datanets.ts';
  export * from './rpc/client/models.ts';
  export * from './rpc/client/training-config.ts';
  export { LocalKey } from './rpc/client/keys.ts';
  export { PaidQuestions } from './rpc/client/paid-questions.ts';
  export * from './rpc/client/rewards.ts';
  export * from './rpc/client/completions.ts';
`;
/** What is sent to a browser, compressed. */
const MAX_KB = 150;

t.test('the client runs where there is no Node', async (test) => {
  const { outputFiles } = await build({
    stdin: { contents: ENTRY, resolveDir: new URL('../../..', import.meta.url).pathname, loader: 'ts' },
    bundle: true,
    write: false,
    minify: true,
    platform: 'browser',
    format: 'iife',
    globalName: 'openledger',
    target: 'es2022',
    logLevel: 'silent',
  });
  const { text } = outputFiles[0]!;
  const size = gzipSync(text).length / 1_000;
  test.ok(size < MAX_KB, `${size.toFixed(0)} kB compressed`);

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
  const { Ledger, LocalKey, pallets } = new Script(`${text};openledger`).runInContext(context) as {
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
