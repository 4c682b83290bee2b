/** The standard transaction extensions, in the order in which transactions carry them. */
import { addWeight, exceeds } from './framework/dispatch.ts';
import { type AnyExtension, extension } from './framework/extension.ts';
import type { Host } from './host.ts';
import * as system from './pallets/standard/system.ts';
import { chargeTransactionPayment } from './pallets/standard/transaction-payment.ts';
import {
  compact,
  encode,
  fixedBytes,
  named,
  option,
  struct,
  tuple,
  u32,
  unit,
  variants,
} from './primitives/scale/codec.ts';
import { type Era, era, eraBirth, eraDeath, hash, type Nonce, nonce } from './primitives/types.ts';
import { invalid } from './primitives/validity.ts';

const nothing = (path: string) => named(path, struct({}));

const checkNonZeroSender = extension({
  name: 'CheckNonZeroSender',
  extra: nothing('frame_system::extensions::check_non_zero_sender::CheckNonZeroSender'),
  implicit: unit,
  implicitOf: () => undefined,
  validate({ signer }) {
    if (signer?.every((byte) => byte === 0)) throw invalid('BadSigner');
    return undefined;
  },
});

const checkGenesis = extension({
  name: 'CheckGenesis',
  extra: nothing('frame_system::extensions::check_genesis::CheckGenesis'),
  implicit: hash,
  implicitOf: ({ host }) => system.blockHash(host, 0),
});

const checkMortality = extension<Era>({
  name: 'CheckMortality',
  extra: named('frame_system::extensions::check_mortality::CheckMortality', era),
  implicit: hash,
  implicitOf({ host }, value, blockNumber) {
    const birth = eraBirth(value, blockNumber);
    const known = system.blockHash(host, birth);
    if (known.every((byte) => byte === 0)) throw invalid('AncientBirthBlock');
    return known;
  },
  validate({ blockNumber }, value) {
    if (value.type === 'Immortal') return undefined;
    return { longevity: BigInt(eraDeath(value, blockNumber) - blockNumber) };
  },
});

const account = tuple(fixedBytes(32), nonce);

const checkNonce = extension<Nonce>({
  name: 'CheckNonce',
  extra: named('frame_system::extensions::check_nonce::CheckNonce', compact(nonce)),
  implicit: unit,
  implicitOf: () => undefined,
  precheck({ env, signer }, given) {
    const info = system.account(env.host, signer);
    if (!system.isAlive(info)) throw invalid('Payment');
    if (given < info.nonce) throw invalid('Stale');
  },
  validate({ env, signer }, given) {
    if (signer === undefined) return undefined;
    const info = system.account(env.host, signer);
    if (!system.isAlive(info)) throw invalid('Payment');
    if (given < info.nonce) throw invalid('Stale');
    const tag = (at: number): Uint8Array => encode(account, [signer, at]);
    return { provides: [tag(given)], requires: given > info.nonce ? [tag(given - 1)] : [] };
  },
  prepare({ env, signer }, given) {
    if (signer === undefined) return undefined;
    const info = system.account(env.host, signer);
    if (given > info.nonce) throw invalid('Future');
    system.putAccount(env.host, signer, { ...info, nonce: info.nonce + 1 });
    return undefined;
  },
});

/** Whether the extrinsic could ever be in a block. */
const checkWeight = extension({
  name: 'CheckWeight',
  bare: true,
  extra: nothing('frame_system::extensions::check_weight::CheckWeight'),
  implicit: unit,
  implicitOf: () => undefined,
  validate({ info, length }) {
    const { maxExtrinsic } = system.limitsOf(info.class);
    const tooHeavy = maxExtrinsic !== undefined && exceeds(info.weight, maxExtrinsic);
    if (tooHeavy || length > system.maxLengthOf(info.class)) throw invalid('ExhaustsResources');
    return undefined;
  },
  prepare({ env: { host }, info, length }) {
    const total = system.extrinsicsLength(host) + length;
    if (total > system.maxLengthOf(info.class)) throw invalid('ExhaustsResources');
    const weight = addWeight(info.weight, system.limitsOf(info.class).baseExtrinsic);
    if (!system.fitsBlock(system.consumed(host), info.class, weight)) throw invalid('ExhaustsResources');
    system.putExtrinsicsLength(host, total);
    system.addConsumed(host, info.class, weight);
    return undefined;
  },
  postDispatch({ env: { host }, info }, _prepared, { post }) {
    if (post.actualWeight !== undefined) system.refundConsumed(host, info.class, info.weight, post.actualWeight);
  },
});

const metadataMode = named('frame_metadata_hash_extension::Mode', variants({ Disabled: null, Enabled: null }));

/** What a chain says of itself that its transactions sign. */
export interface SignedChainFacts {
  readonly specVersion: number;
  readonly transactionVersion: number;
  /** Digest of the metadata by RFC-78. */
  metadataHash(host: Host): Uint8Array;
}

export function extensions(facts: SignedChainFacts): readonly AnyExtension[] {
  return [
    checkNonZeroSender,
    extension({
      name: 'CheckSpecVersion',
      extra: nothing('frame_system::extensions::check_spec_version::CheckSpecVersion'),
      implicit: u32,
      implicitOf: () => facts.specVersion,
    }),
    extension({
      name: 'CheckTxVersion',
      extra: nothing('frame_system::extensions::check_tx_version::CheckTxVersion'),
      implicit: u32,
      implicitOf: () => facts.transactionVersion,
    }),
    checkGenesis,
    checkMortality,
    checkNonce,
    checkWeight,
    chargeTransactionPayment,
    extension({
      name: 'CheckMetadataHash',
      extra: named('frame_metadata_hash_extension::CheckMetadataHash', struct({ mode: metadataMode })),
      implicit: option(fixedBytes(32)),
      implicitOf: ({ host }, { mode }) => (mode.type === 'Enabled' ? facts.metadataHash(host) : undefined),
    }),
  ];
}
