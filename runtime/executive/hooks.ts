/**
 * Hooks and queues of work, guarded: no pallet's hook and no item of work can make a block impossible, and queues take
 * no more of a block than their budgets.
 */
import type { Assembly } from '../framework/assembly.ts';
import { addWeight, cost, exceeds, PS_PER_MS, subWeight, ZERO_WEIGHT } from '../framework/dispatch.ts';
import { type AnyQueue, totalBudget, type WorkObserver } from '../framework/work-queue.ts';
import { isHostFault } from '../host.ts';
import * as system from '../pallets/standard/system.ts';
import * as work from '../pallets/standard/work.ts';
import { InvalidBlock } from '../primitives/invalid-block.ts';
import type { Weight } from '../primitives/types.ts';
import type { Execution } from './execution.ts';

/** What a hook that failed is taken to have cost: it says nothing about that itself. */
const FAILED_HOOK = cost(10n * PS_PER_MS);
/** What queues may take together in every block: what transactions of the class Normal leave. */
const MAX_BUDGET = subWeight(system.BLOCK_WEIGHTS.maxBlock, system.NORMAL_WEIGHT).refTime;
/** What they may take beyond that of a block that is not full. */
const IDLE_BUDGET = 200n * PS_PER_MS;

/** All queues by their full names. */
export const queuesOf = ({ pallets }: Pick<Assembly, 'pallets'>): ReadonlyMap<string, AnyQueue> =>
  new Map(pallets.flatMap((spec) => (spec.work ?? []).map((queue) => [`${spec.name}.${queue.name}`, queue] as const)));

export class HookRunner {
  readonly #assembly: Assembly;
  readonly #queues: readonly (readonly [name: string, queue: AnyQueue])[];

  /** Throws where the queues' budgets do not fit into a block. */
  constructor(assembly: Assembly) {
    this.#assembly = assembly;
    this.#queues = [...queuesOf(assembly)];
    if (totalBudget(this.#queues.map(([, queue]) => queue)) > MAX_BUDGET) {
      throw new Error('the budgets of the queues of work together exceed what a block has for them');
    }
  }

  /** Before the extrinsics. Returns what it took. */
  initialize(env: Execution, number: number): Weight {
    let used = ZERO_WEIGHT;
    for (const { name, hooks } of this.#assembly.pallets) {
      if (hooks?.onInitialize === undefined) continue;
      const ran = this.#guard(env, `${name}.on_initialize`, hooks.judgesBlocks, () =>
        hooks.onInitialize?.(env, number),
      );
      used = addWeight(used, ran ?? FAILED_HOOK);
    }
    for (const [name, queue] of this.#queues)
      used = addWeight(used, this.#drain(env, name, queue, number, queue.budget));
    return used;
  }

  /** After the extrinsics, with what they left of the block. Returns what it took. */
  idle(env: Execution, number: number, remaining: Weight): Weight {
    let left = remaining;
    for (const { name, hooks } of this.#assembly.pallets) {
      if (hooks?.onIdle === undefined || exceeds(ZERO_WEIGHT, left)) continue;
      const given = left;
      const ran = this.#guard(env, `${name}.on_idle`, undefined, () => hooks.onIdle?.(env, number, given));
      left = subWeight(left, ran ?? FAILED_HOOK);
    }
    let budget = left.refTime < IDLE_BUDGET ? left.refTime : IDLE_BUDGET;
    // A different queue is the first in every block.
    const first = this.#queues.length === 0 ? 0 : number % this.#queues.length;
    for (let i = 0; i < this.#queues.length; i++) {
      const [name, queue] = this.#queues[(first + i) % this.#queues.length]!;
      if (budget <= 0n) break;
      const used = this.#drain(env, name, queue, number, budget);
      left = subWeight(left, used);
      budget -= used.refTime;
    }
    return subWeight(remaining, left);
  }

  finalize(env: Execution, number: number): void {
    for (const { name, hooks } of this.#assembly.pallets) {
      if (hooks?.onFinalize === undefined) continue;
      this.#guard(env, `${name}.on_finalize`, hooks.judgesBlocks, () => hooks.onFinalize?.(env, number));
    }
  }

  #drain(env: Execution, name: string, queue: AnyQueue, number: number, budget: bigint): Weight {
    const observer: WorkObserver = {
      begins: () => env.beginEvents(),
      failed(what) {
        env.beginEvents();
        env.emit(work.events.ItemFailed, { queue: name, ...what });
      },
      setAside: (id, error) => {
        env.host.log('error', 'work', `${name}: an item was set aside as number ${id}`);
        env.emit(work.events.SetAside, { queue: name, id, error });
      },
      unreadable: (block, index) => {
        env.host.log('error', 'work', `${name}: item ${index} of block ${block} cannot be read`);
        env.emit(work.events.Unreadable, { queue: name, block, index });
      },
    };
    return this.#guard(env, name, undefined, () => queue.drain(env, number, budget, observer)) ?? FAILED_HOOK;
  }

  /** What `body` returns; undefined, and no trace but an event, where it throws. */
  #guard<T>(env: Execution, hook: string, judgesBlocks: true | undefined, body: () => T): T | undefined {
    env.beginEvents();
    try {
      return env.transactional(body);
    } catch (problem) {
      env.beginEvents();
      if (isHostFault(problem) || (judgesBlocks && problem instanceof InvalidBlock)) throw problem;
      env.host.log('error', 'work', `${hook} failed: ${problem instanceof Error ? problem.message : String(problem)}`);
      env.emit(work.events.HookFailed, { hook, error: env.failureOf(problem) });
      return undefined;
    }
  }
}
