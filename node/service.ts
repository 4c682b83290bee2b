/** The node put together: the one place where its parts meet. Read top to bottom to know what runs. */
import { rm } from 'node:fs/promises';
import type { RpcAddress } from '../rpc/server/server.ts';
import { directoryOf } from './base-path.ts';
import { createHashing } from './crypto/hashing.ts';
import { createSignatures, SignatureCache } from './crypto/signatures.ts';
import type { NodeOptions } from './options.ts';
import { openAttribution } from './parts/attribution-part.ts';
import { openChain } from './parts/chain-part.ts';
import { openConsensus } from './parts/consensus-part.ts';
import type { Ground } from './parts/ground.ts';
import { openMetrics } from './parts/metrics-part.ts';
import { ALONE, openNetwork } from './parts/network-part.ts';
import { openRpc } from './parts/rpc-part.ts';
import { openWatcher } from './parts/watcher-part.ts';
import type { Client, Keystore, NetworkStatus, Service } from './ports/chain.ts';
import { systemClock } from './ports/machine.ts';
import { booksAudit } from './services/books-audit.ts';
import { Informant } from './services/informant.ts';
import { runAll } from './services/run-all.ts';

export interface Node {
  readonly client: Client;
  readonly keystore: Keystore;
  readonly rpc: RpcAddress;
  /** Where the metrics are served. */
  readonly metricsUrl: string | undefined;
  readonly network: NetworkStatus;
  readonly directory: string;
  /** Takes up keys that another process put into the keystore. Throws `KeystoreError`. */
  reloadKeys(): void;
  /** Settles when the node has stopped: at the signal, or rejecting when a part of it failed. */
  readonly stopped: Promise<void>;
}

/** Resolves when blocks are made or followed and RPC is served. Rejects with a typed error when it cannot start. */
export async function startNode(options: NodeOptions, signal: AbortSignal): Promise<Node> {
  await using open = new AsyncDisposableStack();
  const directory = await directoryOf(options);
  if (options.basePath === undefined) open.defer(() => rm(directory, { recursive: true, force: true }));
  const ground: Ground = {
    options,
    directory,
    hashing: createHashing(),
    signatures: new SignatureCache(await createSignatures()),
    clock: options.clock ?? systemClock,
    open,
  };

  const chainPart = await openChain(ground);
  const { chain, reads, blocks, pool, keystore, validator } = chainPart;
  const metrics = await openMetrics(ground);
  const importer = metrics?.numbers.importing(chain) ?? chain;
  const client: Client = { blocks, holds: chain, events: blocks, states: chain, reads, runtime: chain, importer, pool };

  const network = await openNetwork(ground, chainPart, importer);
  const status: NetworkStatus = network ?? ALONE;
  const attribution = await openAttribution(ground, chainPart, network, signal);
  const consensus = openConsensus(ground, chainPart, network, importer, (make) =>
    metrics === undefined ? make() : metrics.numbers.proposing(make),
  );
  const rpc = await openRpc(ground, chainPart, attribution, consensus.voter, client, status);

  const { log } = options;
  const { hashing, signatures } = ground;
  const services: Service[] = [
    ...chainPart.services,
    ...attribution.services,
    ...consensus.services,
    rpc.server,
    new Informant({ client, network: status, clock: ground.clock, log }),
  ];
  if (network !== undefined) services.push(network);
  const watcher = openWatcher(ground, chainPart, rpc.address);
  if (watcher !== undefined) services.push(watcher);
  if (options.auditBooks ?? process.env.OPENLEDGER_AUDIT_BOOKS === '1') {
    services.push(booksAudit({ blocks, events: blocks, states: chain, hashing, signatures }));
  }
  metrics?.numbers.watch({
    node: { name: options.name, version: options.version, isAuthority: validator },
    client,
    network: status,
    pool: () => pool.counters,
    rpc: () => rpc.server.stats(),
    rounds: () => consensus.voter.roundState(),
  });
  if (metrics !== undefined) services.push(metrics.server);

  const opened = open.move();
  return {
    client,
    network: status,
    keystore,
    rpc: rpc.address,
    metricsUrl: metrics?.server.url,
    directory,
    reloadKeys: () => keystore.refresh?.(),
    stopped: runAll(metrics === undefined ? services : services.map((each) => metrics.numbers.task(each)), signal, () =>
      opened.disposeAsync(),
    ),
  };
}
