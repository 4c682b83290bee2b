/**
 * Blobs that the chain has committed to: nodes keep nothing else. The chain knows a blob's hash and size and how many
 * things refer to it; the bytes lie in the nodes' blob stores. Other pallets commit; nobody can by a call of its own.
 */
import { ensure, error } from '../framework/dispatch.ts';
import { apiMethod, constant, type Env, event, pallet, runtimeApi } from '../framework/pallet.ts';
import { identity, map, storage } from '../framework/storage.ts';
import type { Host } from '../host.ts';
import { option, struct, u32, u64 } from '../primitives/scale/codec.ts';
import { balance, type Hash, hash } from '../primitives/types.ts';

/** Larger files are cut into several. */
export const MAX_BLOB_BYTES = 1n << 30n;
/** OPEN held a byte while somebody's blob is kept: 0.1 OPEN a megabyte. */
export const BYTE_DEPOSIT = 10n ** 11n;

export const committedBlob = struct({ bytes: u64, references: u32 });

const store = storage('Blobs', {
  Blobs: map(identity(hash), committedBlob, 'Committed blobs: size, and how many refer to it.'),
});

const errors = {
  Empty: error(0, 'A blob has at least one byte.'),
  TooLarge: error(1, 'The blob is larger than `MaxBlobBytes`.'),
  OtherSize: error(2, 'The blob was committed to with another size: one of the two is wrong.'),
};

const events = {
  Committed: event(0, { blob: hash, bytes: u64 }, 'Nodes take these bytes in from now on.'),
  Dropped: event(1, { blob: hash }, 'Nothing refers to the blob any longer.'),
};

/** One more thing refers to the blob. Fails if its size is out of bounds or differs from what is known. */
export function commit(env: Env, blob: Hash, bytes: bigint): void {
  ensure(bytes > 0n, errors.Empty);
  ensure(bytes <= MAX_BLOB_BYTES, errors.TooLarge);
  const known = store.Blobs.get(env.host, blob);
  ensure(known === undefined || known.bytes === bytes, errors.OtherSize);
  store.Blobs.insert(env.host, blob, { bytes, references: (known?.references ?? 0) + 1 });
  if (known === undefined) env.emit(events.Committed, { blob, bytes });
}

/** One thing less refers to it; the last one frees the nodes from keeping it. */
export function drop(env: Env, blob: Hash): void {
  const known = store.Blobs.get(env.host, blob);
  if (known === undefined) return;
  if (known.references > 1) store.Blobs.insert(env.host, blob, { ...known, references: known.references - 1 });
  else {
    store.Blobs.remove(env.host, blob);
    env.emit(events.Dropped, { blob });
  }
}

/** All blobs that are committed to, in the order of their hashes. */
export function* committed(host: Host): Generator<Hash> {
  yield* store.Blobs.keys(host);
}

export const sizeOf = (host: Host, blob: Hash): bigint | undefined => store.Blobs.get(host, blob)?.bytes;

const api = runtimeApi({
  name: 'BlobsApi',
  version: 1,
  docs: 'What nodes keep for the ledger.',
  methods: {
    expected: apiMethod({
      inputs: { blob: hash },
      output: option(u64),
      docs: 'Size of a blob that the chain has committed to.',
      run: ({ host }, { blob }) => sizeOf(host, blob),
    }),
  },
});

export const blobs = pallet({
  name: 'Blobs',
  index: 25,
  docs: 'Content-addressed files that the ledger refers to.',
  storage: store,
  events,
  errors,
  constants: {
    MaxBlobBytes: constant(u64, MAX_BLOB_BYTES, 'The largest blob.'),
    ByteDeposit: constant(balance, BYTE_DEPOSIT, 'OPEN held a byte.'),
  },
  apis: [api],
});
