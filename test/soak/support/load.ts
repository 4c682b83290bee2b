/** Transfers without end, each account's one after the other, to whichever node answers. */
import { setTimeout as pause } from 'node:timers/promises';
import { blake2b } from '@noble/hashes/blake2.js';
import { encodeSs58 } from '../../../runtime/primitives/ss58.ts';
import { publicKeys, signedTransfers } from '../../bench/support/accounts.ts';
import { RpcClient } from '../../bench/support/rpc-client.ts';

export interface LoadOptions {
  readonly accounts: number;
  /** Transfers of each account that are signed beforehand. */
  readonly perAccount: number;
  /** Transfers a second, about. */
  readonly rate: number;
  readonly genesisHash: Uint8Array;
  readonly specVersion: number;
  readonly transactionVersion: number;
}

export class Load {
  readonly #options: LoadOptions;
  readonly #extrinsics: readonly string[];
  readonly #addresses: readonly string[];
  /** The next nonce by account. */
  readonly #next: number[];
  #at = 0;
  sent = 0;
  /** The highest nonce taken in, by account. */
  readonly acknowledged = new Map<string, number>();

  private constructor(options: LoadOptions, extrinsics: readonly string[], keys: readonly Uint8Array[]) {
    this.#options = options;
    this.#extrinsics = extrinsics;
    this.#addresses = keys.map((key) => encodeSs58(blake2b, { prefix: 42, key }));
    this.#next = keys.map(() => 0);
  }

  static async prepare(options: LoadOptions): Promise<Load> {
    const { accounts, perAccount, genesisHash, specVersion, transactionVersion } = options;
    const job = {
      accounts,
      firstNonce: 0,
      perAccount,
      genesisHash,
      specVersion,
      transactionVersion,
      amount: 10n ** 12n,
    };
    return new Load(options, await signedTransfers(job), await publicKeys(accounts));
  }

  /** Sends until the connection or the signal ends. */
  async run(url: string, signal: AbortSignal): Promise<void> {
    let client: RpcClient;
    try {
      client = await RpcClient.connect(url);
    } catch {
      return;
    }
    try {
      for (let i = 0; i < this.#addresses.length; i++) {
        this.#next[i] = await client.call<number>('system_accountNextIndex', this.#addresses[i]!);
      }
      const { accounts, perAccount, rate } = this.#options;
      while (!signal.aborted) {
        const account = this.#at++ % accounts;
        const nonce = this.#next[account]!;
        if (this.#at % 10 === 0) await pause(10_000 / rate);
        if (nonce >= perAccount) continue;
        try {
          await client.call('author_submitExtrinsic', this.#extrinsics[nonce * accounts + account]!);
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
}
