/** The node put together: the one place where its parts meet. Read top to bottom to know what runs. */
import { randomInt } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AuraWorker } from '../consensus/aura/worker.ts';
import { GrandpaVoter, noNetwork } from '../consensus/grandpa/driver.ts';
import type { BlobExchange } from '../p2p/ledger/blobs.ts';
import type { Network } from '../p2p/network.ts';
import { ledgerGroup } from '../rpc/groups/ledger.ts';
import { health } from '../rpc/groups/system.ts';
import { type RpcAddress, rpcServer } from '../rpc/server/server.ts';
import { standardGroups } from '../rpc/standard-groups.ts';
import { decode, option, u64 } from '../runtime/primitives/scale/codec.ts';
import { WorkerHub } from './attribution/hub.ts';
import { ReceiptVerifier } from './attribution/receipt-verifier.ts';
import { stateReader } from './attribution/state-reader.ts';
import { directoryOf, journalIn, keystoreOf } from './base-path.ts';
import { BlobStore } from './blobs/blob-store.ts';
import { CommittedBlobs } from './blobs/committed.ts';
import { blobHandler, type FetchBlob } from './blobs/http.ts';
import { Chain } from './chain/chain.ts';
import { newRuntime } from './chain/genesis.ts';
import { createHashing } from './crypto/hashing.ts';
import { createSignatures, SignatureCache } from './crypto/signatures.ts';
import { Verifier } from './crypto/verifier.ts';
import { Database } from './database/database.ts';
import type { Metrics } from './metrics/metrics.ts';
import type { MetricsAddress } from './metrics/server.ts';
import type { NodeOptions } from './options.ts';
import { journaling, TransactionJournal } from './pool/journal.ts';
import { TransactionPool } from './pool/pool.ts';
import type { Client, Keystore, NetworkStatus, Service } from './ports/chain.ts';
import type { InferenceHub } from './ports/inference.ts';
import { systemClock } from './ports/machine.ts';
import { BlobAttester } from './services/blob-attester.ts';
import { booksAudit } from './services/books-audit.ts';
import { EquivocationReporter } from './services/equivocation-reporter.ts';
import { Informant } from './services/informant.ts';
import { aborted, runAll } from './services/run-all.ts';
import { verifyRange } from './state/range-proof.ts';
import { extrinsicsRoot } from './state/trie.ts';

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

/** In the order of the runtime's `SessionKeys`. */
const SESSION_KEYS = ['aura', 'gran'] as const;

const BLOB_BYTES = 8 * 2 ** 30;

/** This node runs without a network until one is put in here. */
const ALONE: NetworkStatus = {
  peerId: () => '',
  listenAddresses: () => [],
  peers: () => [],
  isMajorSyncing: () => false,
  syncTarget: () => undefined,
  traffic: () => ({ received: 0, bans: 0 }),
  addReservedPeer: () => Promise.reject(new Error('this node runs without a network')),
  removeReservedPeer: () => Promise.reject(new Error('this node runs without a network')),
  reservedPeers: () => [],
};

/** Loaded when asked for, as the network is. */
async function openMetrics(chain: string, address: MetricsAddress) {
  const [{ Metrics }, { metricsServer }] = await Promise.all([
    import('./metrics/metrics.ts'),
    import('./metrics/server.ts'),
  ]);
  const numbers: Metrics = new Metrics(chain);
  return { numbers, server: await metricsServer(numbers.registry, address) };
}

/** Resolves when blocks are made or followed and RPC is served. Rejects with a typed error when it cannot start. */
export async function startNode(options: NodeOptions, signal: AbortSignal): Promise<Node> {
  const { spec, log, clock = systemClock } = options;
  const hashing = createHashing();
  const signatures = new SignatureCache(await createSignatures());
  const directory = await directoryOf(options);
  const cleanUp = async () => {
    if (options.basePath === undefined) await rm(directory, { recursive: true, force: true });
  };
  const database = await Database.open(join(directory, 'db'));
  const verifier = new Verifier({ signatures, hashing });
  let network: Network | undefined;
  let closeKeys: () => void = () => {};
  let closeJournal: () => Promise<void> | undefined = () => undefined;
  let closeMetrics: (() => Promise<void>) | undefined;
  const close = async () => {
    await closeMetrics?.();
    await closeJournal();
    await network?.close();
    await verifier.close();
    await database.close();
    closeKeys();
    await cleanUp();
  };
  try {
    const runtime = newRuntime();
    const ports = { database, runtime, hashing, signatures, verifier, clock, log };
    const chain = await Chain.open(ports, {
      pruning: options.statePruning,
      blocksPruning: options.blocksPruning,
      genesis: spec.genesis,
    });
    const { blocks } = chain;
    const keystore = keystoreOf(options, directory, hashing);
    closeKeys = () => keystore.close?.();
    const { authority, validator = authority !== undefined } = options;
    if (authority !== undefined) for (const type of SESSION_KEYS) keystore.hold(type, authority);

    const submitted =
      options.basePath === undefined ? undefined : new TransactionJournal(join(directory, 'transactions'));
    closeJournal = () => submitted?.close();
    const pool = new TransactionPool({
      blocks,
      events: blocks,
      validate: (block, source, extrinsic) => chain.validate(block, source, extrinsic),
      preverify: (extrinsics) => chain.preverify(extrinsics),
      ...(submitted !== undefined && { remember: (extrinsic: Uint8Array) => submitted.append(extrinsic) }),
      isAuthority: () => validator,
      hashing,
      clock,
      log,
    });
    const metrics = options.metrics === undefined ? undefined : await openMetrics(spec.id, options.metrics);
    closeMetrics = metrics?.server.close;
    const importer = metrics?.numbers.importing(chain) ?? chain;
    const client: Client = { blocks, holds: chain, events: blocks, states: chain, runtime: chain, importer, pool };

    if (options.network !== undefined) {
      // Loaded when asked for: a node alone starts without it.
      const { createNetwork } = await import('../p2p/network.ts');
      const { blockCheck, highestPossible } = await import('../p2p/chain/block-check.ts');
      network = await createNetwork({
        ...options.network,
        bootNodes: [...spec.bootNodes, ...options.network.bootNodes],
        keyFile: options.network.keyFile ?? (options.basePath === undefined ? undefined : join(directory, 'node-key')),
        blocks,
        events: blocks,
        chain,
        importer,
        states: chain,
        runtime: chain,
        verifyRange: (root, proof, after) => verifyRange(hashing.blake2_256, root, proof, after),
        pool,
        reachable: () => highestPossible({ blocks, slotMs: chain.slotMs, clock }),
        checkBlock: blockCheck({
          blocks,
          authorities: (parent) => chain.auraAuthorities(parent),
          extrinsicsRoot: (extrinsics) => extrinsicsRoot(hashing.blake2_256, extrinsics),
          slotMs: chain.slotMs,
          hashing,
          signatures,
          clock,
        }),
        hashing,
        signatures,
        clock,
        log,
        sync: options.network.sync ?? 'full',
        role: validator ? 'AUTHORITY' : 'FULL',
        forkId: spec.forkId,
        agent: `openledger/${options.version}`,
        privateAddresses: spec.chainType !== 'Live',
      });
    }
    const status: NetworkStatus = network ?? ALONE;

    const blobs = await BlobStore.open({
      directory: join(directory, 'blobs'),
      maxBytes: options.blobBytes ?? BLOB_BYTES,
      expected: (blob) => {
        const size = decode(option(u64), chain.call(blocks.info().best.hash, 'BlobsApi_expected', blob));
        return size === undefined ? undefined : Number(size);
      },
    });
    let exchange: BlobExchange | undefined;
    const fetchBlob: FetchBlob = async (blob) => (await exchange?.fetch(blob, signal)) ?? false;
    const checks = new ReceiptVerifier({
      hashing,
      state: () => stateReader(chain.at(blocks.info().best.hash)!, hashing, signatures),
      genesisHash: () => blocks.info().genesisHash,
      async blob(hash) {
        if (!blobs.has(hash)) await fetchBlob(hash);
        return blobs.read(hash);
      },
    });
    const committed = new CommittedBlobs({ chain, state: () => checks.state(), hashing });
    const local = new WorkerHub(checks, hashing);
    let hub: InferenceHub = local;
    const services: Service[] = [];
    if (network !== undefined) {
      const { BlobExchange } = await import('../p2p/ledger/blobs.ts');
      const { InferenceNetwork } = await import('../p2p/ledger/inference.ts');
      const wire = network.wire();
      exchange = new BlobExchange(wire, {
        blobs,
        committed: () => committed.all(),
        replicate: validator,
      });
      const far = new InferenceNetwork(wire, local, {
        genesisHash: () => blocks.info().genesisHash,
        verify: (receipt) => checks.verify(receipt),
        hashing,
      });
      for (const each of [exchange, far]) {
        await each.register();
        services.push(each);
      }
      hub = far;
    }

    const shouldHavePeers = network !== undefined && spec.chainType !== 'Development';
    let voter: GrandpaVoter | undefined;
    const standard = standardGroups({
      client,
      network: status,
      keystore,
      hashing,
      chain: { name: spec.name, type: spec.chainType, properties: { ...spec.properties } },
      node: { name: options.name, version: options.version, roles: [validator ? 'Authority' : 'Full'] },
      sessionKeyTypes: SESSION_KEYS,
      startingBlock: blocks.info().best.number,
      roundStates: () => voter?.roundState(),
      shouldHavePeers,
      log,
    });
    const { maxConnections, ...listening } = options.rpc;
    const rpc = rpcServer({
      ...listening,
      ...(maxConnections !== undefined && { limits: { connections: maxConnections } }),
      groups: [
        ...standard,
        ledgerGroup({
          hub,
          checks,
          host: () => checks.state(),
          genesisHash: () => blocks.info().genesisHash,
        }),
      ],
      routes: [blobHandler(blobs, fetchBlob)],
      health: () => {
        const report = health({ network: status, shouldHavePeers });
        return { report, ready: !report.isSyncing && (report.peers > 0 || !shouldHavePeers) };
      },
      log,
    });
    const address = await rpc.listen();

    const journal = journalIn(database);
    services.push(
      { name: 'pool', run: (until) => pool.run(until) },
      ...(submitted === undefined ? [] : [journaling(submitted, pool, blocks, log)]),
      rpc,
      new Informant({ client, network: status, clock, log }),
      { name: 'database', run: (until) => Promise.race([database.failed, aborted(until)]) },
    );
    if (validator) {
      services.push(
        new AuraWorker(
          {
            best: () => {
              const { best } = blocks.info();
              return { ref: best, header: blocks.header(best.hash)! };
            },
            authorities: (parent) => chain.auraAuthorities(parent),
            propose: (request) => {
              const make = () => chain.propose(request, pool.bestFirst(), (hash) => pool.remove([hash]));
              return metrics === undefined ? make() : metrics.numbers.proposing(make);
            },
            importer,
            isMajorSyncing: () => status.isMajorSyncing(),
            keystore,
            hashing,
            journal,
            clock,
            log,
          },
          { slotMs: chain.slotMs, forceAuthoring: spec.chainType === 'Development' },
        ),
      );
    }
    const equivocations = new EquivocationReporter({
      chain,
      pool,
      keystore,
      isMajorSyncing: () => status.isMajorSyncing(),
      log,
    });
    if (validator) {
      const attester = new BlobAttester({
        chain,
        events: blocks,
        state: () => checks.state(),
        blobs,
        committed,
        pool,
        keystore,
        hashing,
        isMajorSyncing: () => status.isMajorSyncing(),
        log,
      });
      services.push(equivocations, attester);
    }
    voter = new GrandpaVoter(
      {
        blocks,
        events: blocks,
        importer,
        authoritySet: chain.authoritySet,
        keystore,
        signatures,
        journal,
        network: network?.grandpa ?? noNetwork,
        reportEquivocation: (votes, encoded) => equivocations.reportVotes(votes, encoded),
        clock,
        random: () => randomInt(2 ** 32) / 2 ** 32,
        log,
      },
      { voting: validator },
    );
    services.push({
      name: voter.name,
      async run(until) {
        // The block that a voter begins on must not change under it.
        await network?.grounded;
        network?.attachVoter(voter);
        await voter.run(until);
      },
    });
    if (options.auditBooks ?? process.env.OPENLEDGER_AUDIT_BOOKS === '1') {
      services.push(booksAudit({ blocks, events: blocks, states: chain, hashing, signatures }));
    }
    if (network !== undefined) services.push(network);
    metrics?.numbers.watch({
      node: { name: options.name, version: options.version, isAuthority: validator },
      client,
      network: status,
      pool: () => pool.counters,
      rpc: () => rpc.stats(),
      rounds: () => voter?.roundState(),
    });
    if (metrics !== undefined) services.push(metrics.server);
    return {
      client,
      network: status,
      keystore,
      rpc: address,
      metricsUrl: metrics?.server.url,
      directory,
      reloadKeys: () => keystore.refresh?.(),
      stopped: runAll(
        metrics === undefined ? services : services.map((each) => metrics.numbers.task(each)),
        signal,
        close,
      ),
    };
  } catch (problem) {
    await close();
    throw problem;
  }
}
