/** Transfers without end, each account's one after the other, to whichever node answers. */
import { setTimeout as pause } from 'node:timers/promises';
import { blake2b } from '@noble/hashes/blake2.js';
import { encodeSs58 } from '../../../runtime/primitives/ss58.ts';
import { publicKeys, signedTransfers } from '../../bench/support/accounts.ts';
import { RpcClient } from '../../bench/support/rpc-client.ts';

export interface LoadOptions {
  readonly accounts: number;
  /** Transfers a second, about. */
  readonly rate: number;
  readonly genesisHash: Uint8Array;
  readonly specVersion: number;
  readonly transactionVersion: number;
}

/** Transfers of each account that are signed at a time. */
const ROUNDS = 20;
/** One in so many is followed until it is final. */
const WATCHED = 7;

export class Load {
  readonly #options: LoadOptions;
  readonly #extrinsics: string[] = [];
  #signing: Promise<void> | undefined;
  readonly #addresses: readonly string[];
  /** The next nonce by account. */
  readonly #next: number[];
  sent = 0;
  /** The highest nonce taken in, by account. */
  readonly acknowledged = new Map<string, number>();
  /** Transfers that a node said are final, by the block, in hex, that it said has them. */
  readonly final = new Map<string, string[]>();

  private constructor(options: LoadOptions, keys: readonly Uint8Array[]) {
    this.#options = options;
    this.#addresses = keys.map((key) => encodeSs58(blake2b, { prefix: 42, key }));
    this.#next = keys.map(() => 0);
  }

  static async prepare(options: LoadOptions): Promise<Load> {
    const load = new Load(options, await publicKeys(options.accounts));
    await load.#sign();
    return load;
  }

  #sign(): Promise<void> {
    const { accounts, genesisHash, specVersion, transactionVersion } = this.#options;
    this.#signing ??= (async () => {
      const firstNonce = this.#extrinsics.length / accounts;
      const job = { accounts, firstNonce, perAccount: ROUNDS, genesisHash, specVersion, transactionVersion };
      for (const each of await signedTransfers({ ...job, amount: 10n ** 12n }, 1)) this.#extrinsics.push(each);
      this.#signing = undefined;
    })();
    return this.#signing;
  }

  /**
   * Sends until the connection or the signal ends. Of two that run at the same time each has its own half of the accounts: a nonce
   * that both take for theirs would leave a gap behind it.
   */
  async run(url: string, half: 0 | 1, signal: AbortSignal): Promise<void> {
    let client: RpcClient;
    try {
      client = await RpcClient.connect(url);
    } catch {
      return;
    }
    try {
      const { accounts, rate } = this.#options;
      for (let i = half; i < accounts; i += 2) {
        this.#next[i] = await client.call<number>('system_accountNextIndex', this.#addresses[i]!);
      }
      for (let at = 0; !signal.aborted; at++) {
        const account = (2 * at + half) % accounts;
        const nonce = this.#next[account]!;
        if (at % 10 === 0) await pause(10_000 / rate);
        const extrinsic = this.#extrinsics[nonce * accounts + account];
        if (extrinsic === undefined) {
          await this.#sign();
          continue;
        }
        try {
          if (at % WATCHED === 0) await this.#watch(client, extrinsic);
          else await client.call('author_submitExtrinsic', extrinsic);
          this.acknowledged.set(this.#addresses[account]!, nonce);
          this.sent++;
          this.#next[account]!++;
        } catch (problem) {
          if ((problem as { code?: number }).code === undefined) return;
        }
      }
    } catch {
      // The node is gone: whoever started it knows.
    } finally {
      client.close();
    }
  }

  #watch(client: RpcClient, extrinsic: string): Promise<unknown> {
    return client.subscribe<{ readonly finalized?: string }>(
      'author_submitAndWatchExtrinsic',
      [extrinsic],
      ({ finalized }) => {
        if (finalized !== undefined) this.final.set(finalized, [...(this.final.get(finalized) ?? []), extrinsic]);
      },
    );
  }
}
