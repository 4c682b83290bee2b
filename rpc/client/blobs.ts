/** Blobs by their hash, over HTTP at the node's own address. */
import { toHex } from '../../runtime/primitives/bytes.ts';
import { LedgerError } from './errors.ts';

export class BlobClient {
  readonly #http: string;

  /** `url`: the node's WebSocket address. */
  constructor(url: string) {
    this.#http = url.replace(/^ws/, 'http').replace(/\/$/, '');
  }

  /** Rejects with a LedgerError `BLOB_…` when the node does not have it. */
  async get(hash: Uint8Array): Promise<Uint8Array> {
    const response = await fetch(this.#address(hash));
    if (!response.ok) throw await failure(response);
    return new Uint8Array(await response.arrayBuffer());
  }

  async has(hash: Uint8Array): Promise<boolean> {
    return (await fetch(this.#address(hash), { method: 'HEAD' })).ok;
  }

  /** The chain must have committed to it. Rejects with a LedgerError `BLOB_…`. */
  async put(hash: Uint8Array, bytes: Uint8Array): Promise<void> {
    const response = await fetch(this.#address(hash), { method: 'PUT', body: new Uint8Array(bytes) });
    if (!response.ok) throw await failure(response);
  }

  #address(hash: Uint8Array): string {
    return `${this.#http}/blobs/${toHex(hash)}`;
  }
}

async function failure(response: Response): Promise<LedgerError> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string } };
    return new LedgerError(`BLOB_${error.code}`, error.message);
  } catch {
    return new LedgerError('BLOB_FAILED', `the node answered ${response.status}`);
  }
}
