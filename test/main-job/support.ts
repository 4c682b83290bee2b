/** A development ledger with what belongs to it, in this process: node, worker, gateway, each stopped with the test. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SHIPPED_MODEL, startWorker, type WorkerStart } from '../../gpu-worker/start.ts';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { KeySigner } from '../../node/keystore/key-signer.ts';
import type { Log } from '../../node/ports/machine.ts';
import { type Node, startNode } from '../../node/service.ts';
import type { NetworkSettings } from '../../p2p/network.ts';
import { Ledger } from '../../rpc/client/ledger.ts';
import type { LocalSigner } from '../../rpc/client/signer.ts';
import { type GatewayOptions, startGateway } from '../../rpc/gateway/gateway.ts';

export const OPEN = 10n ** 18n;
export const hashing = createHashing();
/** What a test was told at `warn` and above. */
export interface Heard {
  readonly log: Log;
  readonly lines: string[];
}

export function listener(name: string): Heard {
  const lines: string[] = [];
  const log: Log = (level, message) => {
    if (level === 'warn' || level === 'error') lines.push(`${name}: ${message}`);
    if (process.env.TEST_LOG !== undefined && level !== 'debug')
      process.stderr.write(`# ${name} ${level}: ${message}\n`);
  };
  return { log, lines };
}

interface Teardown {
  teardown(handler: () => unknown): unknown;
}

export async function temporaryDirectory(test: Teardown): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'openledger-test-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Starts a node of the `dev` chain with short slots; `//Alice` authors. */
export async function startLedger(
  test: Teardown,
  options: {
    readonly slotDurationMs?: number;
    readonly basePath?: string;
    readonly port?: number;
    readonly log?: Log;
    readonly network?: NetworkSettings;
  } = {},
): Promise<{
  readonly node: Node;
  readonly ledger: Ledger;
  readonly pair: (uri: string) => LocalSigner;
  stop(): Promise<void>;
}> {
  const stop = new AbortController();
  const node = await startNode(
    {
      name: 'test',
      version: '0',
      spec: presetSpec('dev', { slotDurationMs: options.slotDurationMs ?? 500 }),
      basePath: options.basePath ?? (await temporaryDirectory(test)),
      statePruning: 256,
      authority: '//Alice',
      rpc: { host: '127.0.0.1', port: options.port ?? 0, methods: 'auto' },
      network: options.network,
      log: options.log ?? listener('node').log,
    },
    stop.signal,
  );
  const ledger = await Ledger.connect(node.rpc.ws);
  const end = async (): Promise<void> => {
    ledger.close();
    stop.abort();
    await node.stopped;
  };
  test.teardown(end);
  return { node, ledger, pair: (uri) => KeySigner.fromUri(uri, hashing), stop: end };
}

/** A worker with the shipped model; `stopped` rejects if it fails. */
export async function attachWorker(
  test: Teardown,
  options: Partial<WorkerStart> & { readonly node: string; readonly key: LocalSigner },
): Promise<{ readonly stopped: Promise<void>; stop(): Promise<void> }> {
  const signal = new AbortController();
  const directory = options.directory ?? (await temporaryDirectory(test));
  const stopped = startWorker(
    {
      directory,
      modelDirectory: SHIPPED_MODEL,
      engineChoice: 'embedded',
      telemetryPort: 0,
      licence: 'Apache-2.0',
      bond: 1_000n * OPEN,
      training: true,
      serving: true,
      auditing: false,
      maxAdapters: 8,
      settleMs: 2_000,
      checkpointSteps: 50,
      hashing,
      signatures: await createSignatures(),
      log: listener('worker').log,
      ...options,
    },
    signal.signal,
  );
  stopped.catch(() => {});
  const stop = async (): Promise<void> => {
    signal.abort();
    await stopped;
  };
  test.teardown(stop);
  return { stopped, stop };
}

export async function openGateway(
  test: Teardown,
  options: Partial<GatewayOptions> & Pick<GatewayOptions, 'node' | 'key'>,
) {
  const gateway = await startGateway({
    host: '127.0.0.1',
    port: 0,
    session: undefined,
    funding: undefined,
    apiKey: undefined,
    stateFile: undefined,
    hashing,
    log: listener('gateway').log,
    ...options,
  });
  test.teardown(() => gateway.close());
  return gateway;
}
