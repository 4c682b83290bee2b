/** The node in numbers, under the names that Substrate's dashboards and alerts know. */
import { performance } from 'node:perf_hooks';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Proposal } from '../../consensus/aura/worker.ts';
import type { RoundStateReport } from '../../consensus/grandpa/round-state.ts';
import type { RpcStats } from '../../rpc/server/server.ts';
import type { PoolCounters } from '../pool/pool.ts';
import type { BlockImport, Client, NetworkStatus, Service } from '../ports/chain.ts';

export interface MetricsSources {
  readonly node: { readonly name: string; readonly version: string; readonly isAuthority: boolean };
  readonly client: Client;
  readonly network: NetworkStatus;
  readonly pool: () => Readonly<PoolCounters>;
  readonly rpc: () => RpcStats;
  readonly rounds: () => RoundStateReport | undefined;
}

/** Substrate's `NodeRole`: bits of what a node is. */
const ROLE = { full: 1, authority: 4 };
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

export class Metrics {
  readonly registry = new Registry();
  readonly #proposing: Histogram;
  readonly #transactions: Gauge;
  readonly #importing: Histogram<'result'>;
  readonly #imported: Counter<'result'>;
  readonly #spawned: Counter<'task_name'>;
  readonly #ended: Counter<'task_name' | 'reason'>;

  /** `chain`: id of the chain spec, a label of every number. */
  constructor(chain: string) {
    const { registry } = this;
    const registers = [registry];
    registry.setDefaultLabels({ chain });
    collectDefaultMetrics({ register: registry });
    this.#proposing = new Histogram({
      name: 'substrate_proposer_block_proposal_time',
      help: 'Seconds it took to make a block',
      buckets: SECONDS,
      registers,
    });
    this.#transactions = new Gauge({
      name: 'substrate_proposer_number_of_transactions',
      help: 'Transactions in the block made last',
      registers,
    });
    this.#importing = new Histogram({
      name: 'substrate_block_verification_and_import_time',
      help: 'Seconds it took to verify and import a block, waiting for others included',
      labelNames: ['result'],
      buckets: SECONDS,
      registers,
    });
    this.#imported = new Counter({
      name: 'substrate_import_queue_processed_total',
      help: 'Blocks that were offered for import',
      labelNames: ['result'],
      registers,
    });
    this.#spawned = new Counter({
      name: 'substrate_tasks_spawned_total',
      help: 'Parts of the node that were started',
      labelNames: ['task_name'],
      registers,
    });
    this.#ended = new Counter({
      name: 'substrate_tasks_ended_total',
      help: 'Parts of the node that have ended',
      labelNames: ['task_name', 'reason'],
      registers,
    });
  }

  /** Numbers that are read when they are asked for. Once. */
  watch({ node, client, network, pool, rpc, rounds }: MetricsSources): void {
    const registers = [this.registry];
    const { blocks } = client;
    const gauge = (name: string, help: string, read: () => number | undefined): void => {
      new Gauge({
        name: `substrate_${name}`,
        help,
        registers,
        collect() {
          const value = read();
          if (value !== undefined) this.set(value);
        },
      });
    };
    const counter = (name: string, help: string, read: () => number): void => {
      new Counter({
        name: `substrate_${name}`,
        help,
        registers,
        collect() {
          this.reset();
          this.inc(read());
        },
      });
    };
    new Gauge({
      name: 'substrate_build_info',
      help: 'Always 1; what runs stands in the labels',
      labelNames: ['name', 'version'],
      registers,
    }).set({ name: node.name, version: node.version }, 1);
    new Gauge({
      name: 'substrate_block_height',
      help: 'Heights of the chain',
      labelNames: ['status'],
      registers,
      collect() {
        const { best, finalized } = blocks.info();
        this.set({ status: 'best' }, best.number);
        this.set({ status: 'finalized' }, finalized.number);
        this.set({ status: 'sync_target' }, Math.max(best.number, network.syncTarget() ?? 0));
      },
    });
    const started = Math.floor(Date.now() / 1_000 - process.uptime());
    gauge('process_start_time_seconds', 'When the node was started, in Unix time', () => started);
    const role = ROLE.full | (node.isAuthority ? ROLE.authority : 0);
    gauge('node_roles', 'Bits: 1 follows the chain, 4 authors and votes', () => role);
    gauge('number_leaves', 'Heads of forks above the final block', () => blocks.leaves().length);
    gauge(
      'ready_transactions_number',
      'Transactions that could go into the next block',
      () => client.pool.status().ready,
    );
    gauge('future_transactions_number', 'Transactions that wait for others', () => client.pool.status().future);
    gauge('sub_libp2p_peers_count', 'Peers that this node speaks with', () => network.peers().length);
    gauge('sub_libp2p_is_major_syncing', '1 while the node is far behind', () => Number(network.isMajorSyncing()));
    counter('sub_libp2p_messages_received', 'Messages that peers have brought', () => network.traffic().received);
    counter('sub_libp2p_peers_banned', 'Peers that were banned for what they sent', () => network.traffic().bans);
    gauge('finality_grandpa_round', 'Round of the vote', () => rounds()?.best.round);
    gauge('finality_grandpa_set_id', 'Set of voters', () => rounds()?.setId);
    gauge(
      'finality_grandpa_prevotes_weight',
      'Weight of the prevotes of the round',
      () => rounds()?.best.prevotes.currentWeight,
    );
    gauge(
      'finality_grandpa_precommits_weight',
      'The same of its precommits',
      () => rounds()?.best.precommits.currentWeight,
    );
    counter('sub_txpool_submitted_transactions', 'Transactions that were submitted', () => pool().submitted);
    counter('sub_txpool_validations_finished', 'Validations of transactions', () => pool().validated);
    counter('sub_txpool_validations_invalid', 'Transactions that were found invalid', () => pool().invalid);
    counter('sub_txpool_block_transactions_pruned', 'Transactions that went into blocks', () => pool().included);
    counter('sub_txpool_block_transactions_resubmitted', 'Transactions of retracted blocks', () => pool().resubmitted);
    counter('sub_txpool_dropped_transactions', 'Transactions for which there was no room', () => pool().dropped);
    gauge('rpc_sessions', 'Connections to JSON-RPC', () => rpc().connections);
    gauge('rpc_subscriptions', 'Subscriptions over them', () => rpc().subscriptions);
    counter('rpc_calls_started', 'Requests since the start', () => rpc().requests);
    counter('rpc_calls_failed', 'Requests that were answered with an error', () => rpc().failures);
  }

  /** Takes the time of making a block. */
  async proposing(propose: () => Promise<Proposal>): Promise<Proposal> {
    const start = performance.now();
    const proposal = await propose();
    this.#proposing.observe((performance.now() - start) / 1_000);
    this.#transactions.set(proposal.extrinsics.length);
    return proposal;
  }

  /** The same importer, observed. */
  importing(importer: BlockImport): BlockImport {
    return {
      import: async (block, options) => {
        const start = performance.now();
        const result = await importer.import(block, options);
        this.#importing.observe({ result: result.type }, (performance.now() - start) / 1_000);
        this.#imported.inc({ result: result.type });
        return result;
      },
      importJustification: (hash, justification) => importer.importJustification(hash, justification),
    };
  }

  /** The same service, observed. */
  task(service: Service): Service {
    const task_name = service.name;
    return {
      name: service.name,
      run: async (signal) => {
        this.#spawned.inc({ task_name });
        let reason = 'failed';
        try {
          await service.run(signal);
          reason = 'finished';
        } finally {
          this.#ended.inc({ task_name, reason });
        }
      },
    };
  }
}
