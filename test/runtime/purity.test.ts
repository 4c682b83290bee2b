/** The runtime reaches nothing but its host: bundled alone, it runs where time, chance, timers and I/O do not exist. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createContext, runInContext } from 'node:vm';
import { blake2b } from '@noble/hashes/blake2.js';
import { blake3 } from '@noble/hashes/blake3.js';
import { build } from 'esbuild';
import t from 'tap';
import { runtimeHost } from '../../node/chain/runtime-host.ts';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { Database } from '../../node/database/database.ts';
import { StateDatabase } from '../../node/state/state-database.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { AURA_ENGINE, type Header } from '../../runtime/primitives/header.ts';
import { encode, u64 } from '../../runtime/primitives/scale/codec.ts';
import { ZERO_HASH } from '../../runtime/primitives/types.ts';
import { createRuntime } from '../../runtime/runtime.ts';

const entry = new URL('../../runtime/runtime.ts', import.meta.url).pathname;
const blake2_64 = (data: Uint8Array) => blake2b(data, { dkLen: 8 });

async function bundle() {
  const made = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: 'iife',
    globalName: 'made',
    metafile: true,
  });
  return { code: made.outputFiles[0]!.text, inputs: Object.keys(made.metafile.inputs) };
}

t.test('the bundle holds nothing but the runtime, and runs without the world', async (test) => {
  const { code, inputs } = await bundle();
  test.same(
    inputs.filter((path) => !/(^|\/)runtime\//.test(path)),
    [],
    'no module from elsewhere',
  );
  // Bytes cross the border, so both sides must mean the same by them. Everything else is the bare language.
  const context = createContext({ Uint8Array, DataView, ArrayBuffer, TextEncoder, TextDecoder, Error });
  runInContext('delete globalThis.Date; delete Math.random; delete globalThis.WebAssembly;', context);
  test.equal(
    runInContext('typeof process + typeof setTimeout + typeof fetch + typeof Date + typeof Math.random', context),
    'undefined'.repeat(5),
  );
  runInContext(code, context);
  const confined = (runInContext('made', context) as { createRuntime: typeof createRuntime }).createRuntime({
    blake2_64,
    blake3,
  });

  const directory = await mkdtemp(join(tmpdir(), 'purity-'));
  const database = await Database.open(directory);
  test.teardown(async () => {
    await database.close();
    await rm(directory, { recursive: true, force: true });
  });
  const hashing = createHashing();
  const signatures = await createSignatures();
  const states = await StateDatabase.open(database, hashing.blake2_256, { pruning: 'archive' });
  const { genesis } = presetSpec('dev');
  if (genesis.type !== 'config') throw new Error('presets are configurations');

  const run = (runtime: typeof confined) => {
    const host = runtimeHost(states.empty(), hashing, signatures, () => {});
    runtime.genesis(host, genesis.config, new Uint8Array());
    const roots = [toHex(host.storageRoot(1))];
    let parentHash = ZERO_HASH;
    for (let number = 1; number <= 5; number++) {
      const slot = BigInt(1_000 + number);
      const start: Header = {
        parentHash,
        number,
        stateRoot: ZERO_HASH,
        extrinsicsRoot: ZERO_HASH,
        digest: { logs: [{ type: 'PreRuntime', value: [AURA_ENGINE, encode(u64, slot)] }] },
      };
      runtime.executive.initializeBlock(host, start);
      const data = { timstap0: encode(u64, slot * 3_000n) };
      for (const inherent of runtime.executive.inherentExtrinsics(host, data)) {
        if (!runtime.executive.applyExtrinsic(host, inherent).ok) throw new Error('an inherent was refused');
      }
      parentHash = runtime.executive.finalizeBlock(host).stateRoot;
      roots.push(toHex(parentHash));
    }
    return { roots, metadata: toHex(hashing.blake2_256(runtime.call(host, 'Metadata_metadata', new Uint8Array()))) };
  };
  test.same(run(confined), run(createRuntime({ blake2_64, blake3 })), 'the same roots and metadata, confined or not');
});
