/** Makes keys and signs transfers: the work of a wallet, kept off the thread that measures. */
import { parentPort, workerData } from 'node:worker_threads';
import * as schnorrkel from '@polkadot-labs/schnorrkel-wasm';
import { balances } from '../../../runtime/pallets/standard/balances.ts';
import { concatBytes, toHex } from '../../../runtime/primitives/bytes.ts';
import { compact, encode, u32, u128 } from '../../../runtime/primitives/scale/codec.ts';
import type { TransferJob } from './accounts.ts';

const pairOf = (index: number): Uint8Array => {
  const seed = new Uint8Array(32);
  new DataView(seed.buffer).setUint32(0, index + 1);
  return schnorrkel.sr25519_keypair_from_seed(seed);
};

/** Balances.transfer_keep_alive */
const TRANSFER = Uint8Array.of(balances.index, 3);
const IMMORTAL = Uint8Array.of(0);
const NO_TIP = Uint8Array.of(0);
const NO_METADATA_HASH = Uint8Array.of(0);

function transfers(job: TransferJob): string[][] {
  const { genesisHash, accounts, amount } = job;
  const additional = concatBytes(
    encode(u32, job.specVersion),
    encode(u32, job.transactionVersion),
    genesisHash,
    genesisHash,
    NO_METADATA_HASH,
  );
  const pairs = Array.from({ length: job.to - job.from }, (_, i) => pairOf(job.from + i));
  const beneficiaries = pairs.map((_, i) => pairOf((job.from + i + 1) % accounts).slice(64));
  return Array.from({ length: job.perAccount }, (_, round) =>
    pairs.map((pair, i) => {
      const publicKey = pair.subarray(64);
      const nonce = encode(compact(u32), job.firstNonce + round);
      const extra = concatBytes(IMMORTAL, nonce, NO_TIP, NO_METADATA_HASH);
      const call = concatBytes(TRANSFER, Uint8Array.of(0), beneficiaries[i]!, encode(compact(u128), amount));
      const signature = schnorrkel.sr25519_sign(publicKey, pair.subarray(0, 64), concatBytes(call, extra, additional));
      const body = concatBytes(Uint8Array.of(0x84, 0), publicKey, Uint8Array.of(1), signature, extra, call);
      return toHex(concatBytes(encode(compact(u32), body.length), body));
    }),
  );
}

const request = workerData as { type: 'keys'; count: number } | { type: 'transfers'; job: TransferJob };
parentPort?.postMessage(
  request.type === 'keys'
    ? Array.from({ length: request.count }, (_, i) => pairOf(i).slice(64))
    : transfers(request.job),
);
