/**
 * Attests on the chain whose claims' files a validator holds. A file counts as held when its bytes have had the right hash once in
 * this run of the node; one whose bytes have not is removed, so that it is fetched anew, and taken back on the chain. Of a batch
 * of records, root and number of records must be those of the file.
 */

import type { Hashing, Host } from '../../runtime/host.ts';
import { type Attester, attestersAmong, type Claim, isHolder } from '../../runtime/pallets/ledger/blobs.ts';
import { manifestOf } from '../../runtime/pallets/ledger/datanets.ts';
import * as system from '../../runtime/pallets/standard/system.ts';
import { availability, MAX_ATTESTED_CLAIMS } from '../../runtime/primitives/attribution/availability.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { ClaimId } from '../../runtime/primitives/attribution/ids.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { encode, fixedBytes, struct } from '../../runtime/primitives/scale/codec.ts';
import { holdsBatch } from '../blobs/batch-check.ts';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { CommittedBlobs } from '../blobs/committed.ts';
import type { Chain } from '../chain/chain.ts';
import type { ChainEvents, Keystore, Pool, Service } from '../ports/chain.ts';
import type { Log } from '../ports/machine.ts';

const KEY_TYPE = 'gran';
/** Blocks after which an attestation that no block has taken is made again. */
const PATIENCE = 8;

export interface AttesterPorts {
  readonly chain: Pick<Chain, 'blocks' | 'callOffchain'>;
  readonly events: ChainEvents;
  /** The state of the best block. */
  readonly state: () => Host;
  readonly blobs: Pick<BlobStore, 'has' | 'size' | 'verify' | 'stream'>;
  readonly committed: Pick<CommittedBlobs, 'claims'>;
  readonly pool: Pick<Pool, 'submit'>;
  readonly keystore: Pick<Keystore, 'has' | 'sign'>;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly isMajorSyncing: () => boolean;
  readonly log: Log;
}

const submission = struct({ attestation: availability, signature: fixedBytes(64) });

export class BlobAttester implements Service {
  readonly name = 'attestations';
  readonly #ports: AttesterPorts;
  /** Of each own validator, its last attestation, and the height at which it was made. */
  readonly #sent = new Map<number, { readonly session: number; readonly sequence: number; readonly at: number }>();
  /** Claims of which the chain says what is the case, by own account: looked at again in the next session. */
  readonly #settled = new Map<string, Set<ClaimId>>();
  /** Whether the file of a batch of records is what the batch says; it is read once. */
  readonly #fits = new Map<ClaimId, boolean>();
  #session = -1;
  #work: Promise<void> | undefined;

  constructor(ports: AttesterPorts) {
    this.#ports = ports;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { events, isMajorSyncing, log } = this.#ports;
    const unsubscribe = events.subscribe((event) => {
      if (event.type !== 'imported' || !event.isNewBest || this.#work !== undefined || isMajorSyncing()) return;
      this.#work = this.#look(signal)
        .catch((problem: unknown) => log('warn', 'files could not be attested', { problem: String(problem) }))
        .finally(() => {
          this.#work = undefined;
        });
    });
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    unsubscribe();
    await this.#work;
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { keystore, state, chain, blobs, committed } = this.#ports;
    const host = state();
    const at = chain.blocks.info().best.number;
    for (const own of attestersAmong(host, (key) => keystore.has(KEY_TYPE, key))) {
      const before = this.#sent.get(own.validator);
      const waits = before?.session === own.session && before.sequence === own.sequence && at < before.at + PATIENCE;
      if (waits || at + 1 < own.from || signal.aborted) continue;
      const settled = this.#settledOf(own);
      const held: ClaimId[] = [];
      const lost: ClaimId[] = [];
      const open = [...committed.claims()].filter(
        ([id, { files }]) => !settled.has(id) || files.some(({ hash }) => !blobs.has(hash)),
      );
      for (const [id, claim] of open) {
        if (signal.aborted) return;
        const holds = await this.#holds(id, claim);
        if (holds === isHolder(host, id, own.account)) {
          if (holds) settled.add(id);
          continue;
        }
        (holds ? held : lost).push(id);
        if (held.length === MAX_ATTESTED_CLAIMS || lost.length === MAX_ATTESTED_CLAIMS) break;
      }
      if (held.length + lost.length > 0 && !signal.aborted) await this.#attest(own, held, lost);
    }
    const known = committed.claims();
    for (const id of this.#fits.keys()) if (!known.has(id)) this.#fits.delete(id);
  }

  /** Whether all files of a claim are here as it names them. */
  async #holds(id: ClaimId, { files, purpose }: Claim): Promise<boolean> {
    const { blobs, hashing, state } = this.#ports;
    for (const { hash, bytes } of files) {
      if (blobs.size(hash) !== Number(bytes) || !(await blobs.verify(hash))) return false;
    }
    if (purpose.type !== 'Records') return true;
    const known = this.#fits.get(id);
    if (known !== undefined) return known;
    const manifest = manifestOf(state(), purpose.value.datanet, purpose.value.batch);
    if (manifest === undefined) return false;
    const fits = await holdsBatch(hashing, manifest, blobs.stream(manifest.blob));
    this.#fits.set(id, fits);
    return fits;
  }

  #settledOf({ session, account }: Attester): Set<ClaimId> {
    if (session !== this.#session) {
      this.#session = session;
      this.#settled.clear();
    }
    const name = toHex(account);
    const known = this.#settled.get(name) ?? new Set<ClaimId>();
    this.#settled.set(name, known);
    return known;
  }

  async #attest({ key, session, validator, sequence }: Attester, held: ClaimId[], lost: ClaimId[]): Promise<void> {
    const { chain, keystore, hashing, pool, state, log } = this.#ports;
    const attestation = { chain: chain.blocks.info().genesisHash, session, validator, sequence, held, lost };
    const signature = keystore.sign(KEY_TYPE, key, hashOf(hashing, availability, attestation));
    if (signature === undefined) return;
    const { best } = chain.blocks.info();
    this.#sent.set(validator, { session, sequence, at: system.blockNumber(state()) });
    const method = 'BlobsApi_submit_attestation_unsigned_extrinsic';
    const { transactions } = chain.callOffchain(best.hash, method, encode(submission, { attestation, signature }));
    try {
      for (const each of transactions) await pool.submit(each, 'local');
      log('debug', 'files are attested', { held: held.length, lost: lost.length });
    } catch (problem) {
      // The chain has gone on meanwhile: the next block brings another look.
      log('debug', 'an attestation was not taken', { problem: String(problem) });
    }
  }
}
