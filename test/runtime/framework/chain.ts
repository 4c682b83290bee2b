/** A chain of a few pallets of the test's own over an empty state in memory: blocks without an author, without extensions. */
import { blake2b } from '@noble/hashes/blake2.js';
import { runtimeHost } from '../../../node/chain/runtime-host.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { createSignatures } from '../../../node/crypto/signatures.ts';
import { Overlay } from '../../../node/state/overlay.ts';
import { inMemory, Trie } from '../../../node/state/trie.ts';
import { Execution } from '../../../runtime/executive/execution.ts';
import { Executive } from '../../../runtime/executive/executive.ts';
import { queuesOf } from '../../../runtime/executive/hooks.ts';
import { type AnyPallet, type Assembly, assemble } from '../../../runtime/framework/assembly.ts';
import { ROOT } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import type { Host } from '../../../runtime/host.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { work } from '../../../runtime/pallets/standard/work.ts';
import { tuple, vec } from '../../../runtime/primitives/scale/codec.ts';
import { Source } from '../../../runtime/primitives/scale/io.ts';
import { asHash, hash, type RuntimeVersion, ZERO_HASH } from '../../../runtime/primitives/types.ts';

const VERSION: RuntimeVersion = {
  specName: 'test',
  implName: 'test',
  authoringVersion: 1,
  specVersion: 1,
  implVersion: 1,
  apis: [],
  transactionVersion: 1,
  systemVersion: 1,
};

/** `change` replaces functions of the host, to make it fail. */
export async function chainOf(pallets: readonly AnyPallet[], change: (host: Host) => Partial<Host> = () => ({})) {
  const hashing = createHashing();
  const logged: string[] = [];
  const overlay = new Overlay(new Trie(hashing.blake2_256, inMemory), undefined);
  const real = runtimeHost(overlay, hashing, await createSignatures(), (_level, message) => logged.push(message));
  const host: Host = { ...real, ...change(real) };
  const assembly: Assembly = assemble('test_runtime', [
    system.system(() => VERSION),
    work(() => queuesOf(assembly)),
    ...pallets,
  ]);
  const executive = new Executive(assembly, [], VERSION);
  const records = vec(tuple(system.phase, assembly.event, vec(hash)));
  let number = 0;

  /** Begins and ends a block. Returns its events, without those of extrinsics. */
  const block = (within: (env: Execution) => void = () => {}) => {
    number++;
    executive.initializeBlock(host, {
      parentHash: asHash(blake2b(Uint8Array.of(number), { dkLen: 32 })),
      number,
      stateRoot: ZERO_HASH,
      extrinsicsRoot: ZERO_HASH,
      digest: { logs: [] },
    });
    const env = new Execution(assembly, host);
    within(env);
    env.flush();
    const begun = system.consumed(host);
    executive.finalizeBlock(host);
    return { events: events(), mandatory: begun.mandatory };
  };
  const events = () => {
    const stored = host.get(system.eventsKey(host));
    if (stored === undefined) return [];
    return records
      .decodeFrom(new Source(stored))
      .map(([, { type, value }]) => ({ name: `${type}.${value.type}`, value: value.value as Record<string, unknown> }));
  };
  return {
    host,
    assembly,
    executive,
    logged,
    number: () => number,
    block,
    /** Dispatches a call of root in a block of its own; returns the name of its error. */
    root(call: RuntimeCall): string | undefined {
      let error: string | undefined;
      block((env) => {
        const outcome = env.dispatch(call, ROOT);
        error = outcome.ok ? undefined : assembly.describeError(outcome.error);
      });
      return error;
    },
    env: () => new Execution(assembly, host),
  };
}
