/** Files that a worker owes to the node: kept in the journal until the chain expects them and the node has them. */
import { api } from '../../runtime/pallets/ledger/blobs.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import type { WorkerJournal } from './journal.ts';
import type { NodeLink } from './link.ts';

/** So often a file is looked at before it is clear that nobody will ask for it: its receipt was refused or struck. */
const PATIENCE = 600;

export class Uploads {
  readonly #link: NodeLink;
  readonly #journal: WorkerJournal;
  readonly #unexpected = new Map<string, number>();
  readonly #lengths = new Map<string, number>();

  constructor(link: NodeLink, journal: WorkerJournal) {
    this.#link = link;
    this.#journal = journal;
  }

  /** Hands in what the chain has committed to. */
  async look(): Promise<void> {
    for (const hash of await this.#journal.fileNames()) {
      const key = toHex(hash);
      if (!(await this.#isExpected(hash))) {
        const times = (this.#unexpected.get(key) ?? 0) + 1;
        this.#unexpected.set(key, times);
        if (times < PATIENCE) continue;
      } else if (!(await this.#link.ledger.blobs.has(hash))) {
        await this.#link.ledger.blobs.put(hash, (await this.#journal.file(hash))!);
      }
      await this.#journal.forgetFile(hash);
      this.#unexpected.delete(key);
      this.#lengths.delete(key);
    }
  }

  async #isExpected(hash: Uint8Array): Promise<boolean> {
    const key = toHex(hash);
    const bytes = this.#lengths.get(key) ?? (await this.#journal.file(hash))?.length ?? 0;
    this.#lengths.set(key, bytes);
    return this.#link.ledger.ask(api.methods.expected, { blob: asHash(hash), bytes: BigInt(bytes) });
  }
}
