/** What a worker is to the ledger: which base model its files are, what it is registered for, which account attaches. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LedgerError } from '../../rpc/client/errors.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { blobName } from '../../runtime/primitives/attribution/commitment.ts';
import type { BaseModelId } from '../../runtime/primitives/attribution/ids.ts';
import { attachment } from '../../runtime/primitives/attribution/messages.ts';
import { equalBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { multiSignature } from '../../runtime/primitives/types.ts';
import type { WorkerOptions } from '../options.ts';
import type { NodeLink } from './link.ts';

/** The ledger's base model whose files are those that were loaded; registered by this worker if nobody has. */
export async function findBaseModel(link: NodeLink, options: WorkerOptions): Promise<BaseModelId> {
  const { modelDirectory, model, hashing, log } = options;
  const names = ['config.json', 'model.safetensors', 'tokenizer.json'] as const;
  const files = await Promise.all(
    names.map(async (name) => {
      const bytes = new Uint8Array(await readFile(join(modelDirectory, name)));
      return { bytes, blob: blobName(hashing, bytes) };
    }),
  );
  const same = ({ manifest }: models.BaseModel): boolean =>
    [manifest.config, manifest.weights, manifest.tokenizer].every(({ blob }, at) => equalBytes(blob, files[at]!.blob));
  const find = async (): Promise<BaseModelId | undefined> => {
    let lowest: BaseModelId | undefined;
    // Two workers may have registered it at the same time: the lowest id counts for both.
    for await (const [id, value] of link.ledger.entries(models.store.BaseModels)) {
      if (same(value) && (lowest === undefined || id < lowest)) lowest = id;
    }
    return lowest;
  };
  let found = await find();
  if (found === undefined) {
    const { info } = model;
    const [config, weights, tokenizer] = files.map(({ blob, bytes }) => ({ blob, bytes: BigInt(bytes.length) }));
    const manifest = {
      name: info.name,
      licence: options.licence,
      parameters: BigInt(info.parameters),
      vocabulary: info.vocabulary,
      config: config!,
      weights: weights!,
      tokenizer: tokenizer!,
    };
    await link.submit(models.calls.registerBaseModel, { manifest });
    found = await find();
    if (found === undefined) throw new LedgerError('NO_BASE_MODEL', 'the base model was not registered');
    log('info', `registered ${info.name} as base model ${found}`);
  }
  // Whoever registered it may have died before its files were up.
  for (const { blob, bytes } of files) {
    if (!(await link.ledger.blobs.has(blob))) await link.ledger.blobs.put(blob, bytes);
  }
  return found;
}

/** Registers the account as a worker, or says what it offers now where that has changed. */
export async function register(link: NodeLink, options: WorkerOptions, baseModel: BaseModelId): Promise<void> {
  const { training, serving, auditing, engine, model, bond, log } = options;
  const wanted: compute.Capabilities = {
    training,
    serving,
    auditing,
    engine,
    memoryMiB: Math.ceil(model.metrics().memoryBytes / 2 ** 20),
    baseModels: [baseModel],
  };
  const known = await link.ledger.read(compute.store.Workers, link.account);
  if (known === undefined) {
    await link.submit(compute.calls.register, { bond, capabilities: wanted });
    log('info', `registered as a worker with a bond of ${bond / 10n ** 18n} OPEN`);
    return;
  }
  const { capabilities } = known;
  const same =
    capabilities.training === training &&
    capabilities.serving === serving &&
    capabilities.auditing === auditing &&
    capabilities.engine === engine &&
    capabilities.baseModels.length === 1 &&
    capabilities.baseModels[0] === baseModel;
  if (!same) await link.submit(compute.calls.update, { capabilities: wanted });
}

/** How often the worker says anew that it is at this node: others believe it for half an hour. */
const RENEW_MS = 8 * 60_000;

/** The worker's line to one node: it proves the key by the node's challenge, and tells other nodes that it is to be asked there. */
export class Attachment {
  readonly #link: NodeLink;
  readonly #options: WorkerOptions;
  readonly #challenge: Uint8Array;
  readonly #node: Uint8Array;
  #signedAt = 0;

  private constructor(link: NodeLink, options: WorkerOptions, challenge: Uint8Array, node: Uint8Array) {
    this.#link = link;
    this.#options = options;
    this.#challenge = challenge;
    this.#node = node;
  }

  /** `hear` gets the node's jobs. */
  static async open(
    link: NodeLink,
    options: WorkerOptions,
    adapters: readonly number[],
    hear: (job: unknown) => void,
  ): Promise<Attachment> {
    const { rpc } = link.ledger;
    const { challenge, node } = await rpc.call<{ challenge: string; node: string }>('worker_challenge');
    const line = new Attachment(link, options, fromHex(challenge), fromHex(node));
    const proof = line.#sign();
    await rpc.subscribe('worker_attach', 'worker_detach', [toHex(link.account), ...proof, adapters], hear);
    return line;
  }

  /** To be called now and then. */
  async look(): Promise<void> {
    if (Date.now() - this.#signedAt < RENEW_MS) return;
    await this.#link.ledger.rpc.call('worker_renew', ...this.#sign());
  }

  #sign(): readonly [at: number, signature: string] {
    const at = Date.now();
    const digest = hashOf(this.#options.hashing, attachment, {
      chain: this.#link.ledger.genesisHash,
      node: this.#node,
      challenge: this.#challenge,
      worker: this.#link.account,
      at: BigInt(at),
    });
    this.#signedAt = at;
    return [at, toHex(encode(multiSignature, this.#link.sign(digest)))];
  }
}
