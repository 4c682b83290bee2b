/** What the ledger's own modules need of a node: blobs, receipts that are checked, workers and the way to them. */
import { join } from 'node:path';
import type { Network } from '../../p2p/network.ts';
import { verifySignature } from '../../runtime/executive/extrinsic.ts';
import type { Host } from '../../runtime/host.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { attachment } from '../../runtime/primitives/attribution/messages.ts';
import { WorkerHub } from '../attribution/hub.ts';
import { ReceiptVerifier } from '../attribution/receipt-verifier.ts';
import { stateReader } from '../attribution/state-reader.ts';
import { BlobStore } from '../blobs/blob-store.ts';
import { CommittedBlobs } from '../blobs/committed.ts';
import type { FetchBlob } from '../blobs/http.ts';
import type { Service } from '../ports/chain.ts';
import type { InferenceHub } from '../ports/inference.ts';
import { BlobAttester } from '../services/blob-attester.ts';
import { BlobKeeper } from '../services/blob-keeper.ts';
import type { ChainPart } from './chain-part.ts';
import type { Ground } from './ground.ts';

const BLOB_BYTES = 8 * 2 ** 30;

export interface AttributionPart {
  readonly blobs: BlobStore;
  /** Asks the network for a blob that this node lacks. */
  readonly fetchBlob: FetchBlob;
  readonly checks: ReceiptVerifier;
  /** The state of the best block, for reading. */
  readonly state: () => Host;
  readonly hub: InferenceHub;
  /** Raw ed25519 key of this node's peer id; zeros for a node without a network. */
  readonly nodeKey: Uint8Array;
  readonly services: readonly Service[];
}

export async function openAttribution(
  { options, directory, hashing, signatures, open }: Ground,
  { chain, blocks, pool, keystore, validator }: ChainPart,
  network: Network | undefined,
  signal: AbortSignal,
): Promise<AttributionPart> {
  const genesisHash = () => blocks.info().genesisHash;
  const state = () => stateReader(chain.at(blocks.info().best.hash)!, hashing, signatures);
  const committed = new CommittedBlobs({ chain, state, hashing });
  const blobs = await BlobStore.open({
    directory: join(directory, 'blobs'),
    maxBytes: options.blobBytes ?? BLOB_BYTES,
    claims: (blob) => committed.claimsOf(blob),
  });
  const isMajorSyncing = () => network?.isMajorSyncing() ?? false;
  const services: Service[] = [new BlobKeeper({ events: blocks, blobs, isMajorSyncing, log: options.log })];

  const exchange = network && (await blobExchange(network, blobs, committed, validator));
  const fetchBlob: FetchBlob = async (blob) => (await exchange?.fetch(blob, signal)) ?? false;
  const checks = new ReceiptVerifier({
    hashing,
    state,
    genesisHash,
    async blob(hash) {
      if (!blobs.has(hash)) await fetchBlob(hash);
      return blobs.fileOf(hash);
    },
  });
  open.defer(() => checks.close());
  const local = new WorkerHub(checks, hashing);
  let hub: InferenceHub = local;
  if (network !== undefined && exchange !== undefined) {
    const { InferenceNetwork } = await import('../../p2p/ledger/inference.ts');
    const far = new InferenceNetwork(network.wire(), local, {
      genesisHash,
      isAttachment: ({ payload, signature }) =>
        verifySignature(state(), signature, hashOf(hashing, attachment, payload), payload.worker),
      verify: (receipt) => checks.verify(receipt),
      hashing,
    });
    await far.register();
    services.push(exchange, far);
    hub = far;
  }
  if (validator) {
    services.push(
      new BlobAttester({
        chain,
        events: blocks,
        state,
        blobs,
        committed,
        pool,
        keystore,
        hashing,
        isMajorSyncing,
        log: options.log,
      }),
    );
  }
  const nodeKey = network?.wire().publicKey ?? new Uint8Array(32);
  return { blobs, fetchBlob, checks, state, hub, nodeKey, services };
}

async function blobExchange(network: Network, blobs: BlobStore, committed: CommittedBlobs, replicate: boolean) {
  const { BlobExchange } = await import('../../p2p/ledger/blobs.ts');
  const exchange = new BlobExchange(network.wire(), { blobs, committed: () => committed.all(), replicate });
  await exchange.register();
  return exchange;
}
