/** The standard runtime APIs that belong to no single pallet (`sp_api`, `sp_block_builder`, `sp_transaction_pool` …). */
import type { Executive } from './executive/executive.ts';
import { type DispatchInfo, dispatchClass, dispatchError } from './framework/dispatch.ts';
import type { AnyExtension } from './framework/extension.ts';
import { apiMethod, type RuntimeApi, runtimeApi } from './framework/pallet.ts';
import type { RuntimeCall } from './framework/runtime-call.ts';
import type { Host } from './host.ts';
import { METADATA_VERSIONS, type MetadataVersion } from './metadata/metadata.ts';
import * as system from './pallets/standard/system.ts';
import { feeOf, inclusionFee, lengthToFee, weightToFee } from './pallets/standard/transaction-payment.ts';
import { fromUtf8, utf8 } from './primitives/bytes.ts';
import { block, header } from './primitives/header.ts';
import {
  bool,
  bytes,
  type Codec,
  fixedBytes,
  mapped,
  named,
  option,
  pairs,
  result,
  struct,
  u32,
  unit,
  variants,
  vec,
} from './primitives/scale/codec.ts';
import type { TypeDef } from './primitives/scale/type.ts';
import { accountId, balance, hash, nonce, type RuntimeVersion, runtimeVersion, weight } from './primitives/types.ts';
import { transactionSource, transactionValidity, transactionValidityError } from './primitives/validity.ts';

const retyped = <T>(codec: Codec<T>, type: TypeDef): Codec<T> => Object.create(codec, { type: { value: type } });

/** An extrinsic without its length prefix, which it has on the wire. */
const extrinsic: Codec<Uint8Array> = retyped(bytes(), { shape: { kind: 'outer', name: 'UncheckedExtrinsic' } });
const opaqueMetadata = named('sp_core::OpaqueMetadata', bytes());
const inherentData = named('sp_inherents::InherentData', struct({ data: pairs(fixedBytes(8), bytes()) }));
const checkInherentsResult = named(
  'sp_inherents::CheckInherentsResult',
  struct({ okay: bool, fatalError: bool, errors: inherentData }),
);
const inclusionMode = named(
  'sp_runtime::ExtrinsicInclusionMode',
  variants({ AllExtrinsics: null, OnlyInherents: null }),
);
const applyResult = result(result(unit, dispatchError), transactionValidityError);

const runtimeDispatchInfo = named(
  'pallet_transaction_payment::types::RuntimeDispatchInfo',
  struct({ weight, class: dispatchClass, partialFee: balance }),
  {
    params: [
      { name: 'Balance', type: balance.type },
      { name: 'Weight', type: weight.type },
    ],
  },
);
const feeDetails = named(
  'pallet_transaction_payment::types::FeeDetails',
  struct({
    inclusionFee: option(
      named(
        'pallet_transaction_payment::types::InclusionFee',
        struct({ baseFee: balance, lenFee: balance, adjustedWeightFee: balance }),
        { params: [{ name: 'Balance', type: balance.type }] },
      ),
    ),
    tip: balance,
  }),
  { params: [{ name: 'Balance', type: balance.type }] },
);

type InherentRecord = Readonly<Record<string, Uint8Array>>;
const inherentRecord = mapped<{ data: [Uint8Array, Uint8Array][] }, InherentRecord>(
  inherentData,
  ({ data }) => Object.fromEntries(data.map(([id, value]) => [fromUtf8(id), value])),
  (record) => ({ data: Object.entries(record).map(([id, value]): [Uint8Array, Uint8Array] => [utf8(id), value]) }),
);

export interface ApiContext {
  readonly executive: Executive;
  readonly extensions: readonly AnyExtension[];
  readonly version: () => RuntimeVersion;
  readonly metadata: (host: Host, version: MetadataVersion) => Uint8Array;
}

export function standardApis({ executive, extensions, version, metadata }: ApiContext): RuntimeApi[] {
  const call: Codec<RuntimeCall> = retyped(executive.assembly.call, { shape: { kind: 'outer', name: 'RuntimeCall' } });
  const isKnown = (each: number): each is MetadataVersion => METADATA_VERSIONS.some((known) => known === each);
  const tipAt = extensions.findIndex(({ name }) => name === 'ChargeTransactionPayment');

  /** The two of `TransactionPaymentApi` and `TransactionPaymentCallApi`; a bare extrinsic pays nothing. */
  const dispatchInfo = (host: Host, info: DispatchInfo, length: number, paid: boolean) => {
    return {
      weight: info.weight,
      class: { type: info.class },
      partialFee: paid ? feeOf(host, info, length, 0n) : 0n,
    };
  };
  const details = (host: Host, info: DispatchInfo, length: number, paid: boolean, tip: bigint) => ({
    inclusionFee: paid ? inclusionFee(host, info, length) : undefined,
    tip,
  });
  const conversions = {
    query_weight_to_fee: apiMethod({
      inputs: { weight },
      output: balance,
      docs: 'The fee for a weight, without the congestion multiplier.',
      run: (_env, { weight: of }) => weightToFee(of),
    }),
    query_length_to_fee: apiMethod({
      inputs: { length: u32 },
      output: balance,
      docs: 'The fee for a length in bytes.',
      run: (_env, { length }) => lengthToFee(length),
    }),
  };

  return [
    runtimeApi({
      name: 'Core',
      version: 5,
      docs: 'What every runtime can do.',
      methods: {
        version: apiMethod({ inputs: {}, output: runtimeVersion, docs: 'The version of the runtime.', run: version }),
        execute_block: apiMethod({
          inputs: { block },
          output: unit,
          docs: 'Execute the given block; its header without the seal.',
          run({ host }, { block: whole }) {
            executive.executeBlock(host, whole);
            return undefined;
          },
        }),
        initialize_block: apiMethod({
          inputs: { header },
          output: inclusionMode,
          docs: 'Start a block; which extrinsics it may hold.',
          run({ host }, { header: start }) {
            executive.initializeBlock(host, start);
            return { type: 'AllExtrinsics' as const };
          },
        }),
      },
    }),
    runtimeApi({
      name: 'Metadata',
      version: 2,
      docs: 'The runtime described for clients.',
      methods: {
        metadata: apiMethod({
          inputs: {},
          output: opaqueMetadata,
          docs: 'The metadata in version 14.',
          run: ({ host }) => metadata(host, 14),
        }),
        metadata_at_version: apiMethod({
          inputs: { version: u32 },
          output: option(opaqueMetadata),
          docs: 'The metadata in the given version, if the runtime has it.',
          run: ({ host }, { version: wanted }) => (isKnown(wanted) ? metadata(host, wanted) : undefined),
        }),
        metadata_versions: apiMethod({
          inputs: {},
          output: vec(u32),
          docs: 'The versions of metadata that the runtime has.',
          run: () => [...METADATA_VERSIONS],
        }),
      },
    }),
    runtimeApi({
      name: 'BlockBuilder',
      version: 6,
      docs: 'Making a block, step by step.',
      methods: {
        apply_extrinsic: apiMethod({
          inputs: { extrinsic },
          output: applyResult,
          docs: 'Apply an extrinsic to the block under construction.',
          run({ host }, { extrinsic: encoded }) {
            const applied = executive.applyExtrinsic(host, encoded);
            if (!applied.ok) return applied;
            const { outcome } = applied;
            return {
              ok: true as const,
              value: outcome.ok
                ? { ok: true as const, value: undefined }
                : { ok: false as const, error: outcome.error },
            };
          },
        }),
        finalize_block: apiMethod({
          inputs: {},
          output: header,
          docs: 'Finish the block under construction.',
          run: ({ host }) => executive.finalizeBlock(host),
        }),
        inherent_extrinsics: apiMethod({
          inputs: { inherent: inherentRecord },
          output: vec(extrinsic),
          docs: 'The extrinsics that the author must put in, made of its data.',
          run: ({ host }, { inherent }) => executive.inherentExtrinsics(host, inherent),
        }),
        check_inherents: apiMethod({
          inputs: { block, data: inherentRecord },
          output: checkInherentsResult,
          docs: "Check a block's inherents against this node's own data.",
          run({ host }, { block: whole, data }) {
            const problems = executive.checkInherents(host, whole, data);
            return {
              okay: problems.length === 0,
              fatalError: problems.some(({ fatal }) => fatal),
              errors: {
                data: problems.map(({ identifier, message }): [Uint8Array, Uint8Array] => [
                  utf8(identifier),
                  utf8(message),
                ]),
              },
            };
          },
        }),
      },
    }),
    runtimeApi({
      name: 'TaggedTransactionQueue',
      version: 3,
      docs: 'What the transaction pool asks.',
      methods: {
        validate_transaction: apiMethod({
          inputs: { source: transactionSource, tx: extrinsic, blockHash: hash },
          output: transactionValidity,
          docs: 'Whether the transaction could go into a block on top of the given one.',
          run: ({ host }, { source, tx, blockHash }) => executive.validateTransaction(host, source, tx, blockHash),
        }),
      },
    }),
    runtimeApi({
      name: 'AccountNonceApi',
      version: 1,
      docs: 'Nonces of accounts.',
      methods: {
        account_nonce: apiMethod({
          inputs: { account: accountId },
          output: nonce,
          docs: 'The next nonce of the account on the chain; what is in the pool does not count.',
          run: ({ host }, { account }) => system.nextNonce(host, account),
        }),
      },
    }),
    runtimeApi({
      name: 'TransactionPaymentApi',
      version: 4,
      docs: 'What transactions cost.',
      methods: {
        query_info: apiMethod({
          inputs: { uxt: extrinsic, len: u32 },
          output: runtimeDispatchInfo,
          docs: 'Weight, class and fee without the tip.',
          run({ host }, { uxt, len }) {
            const { extrinsic, info } = executive.infoOfExtrinsic(uxt);
            return dispatchInfo(host, info, len, extrinsic.preamble.type !== 'Bare');
          },
        }),
        query_fee_details: apiMethod({
          inputs: { uxt: extrinsic, len: u32 },
          output: feeDetails,
          docs: 'The parts of the fee.',
          run({ host }, { uxt, len }) {
            const { extrinsic, info } = executive.infoOfExtrinsic(uxt);
            const { preamble } = extrinsic;
            const tip = preamble.type === 'Bare' ? 0n : (preamble.extra[tipAt] as bigint);
            return details(host, info, len, preamble.type !== 'Bare', tip);
          },
        }),
        ...conversions,
      },
    }),
    runtimeApi({
      name: 'TransactionPaymentCallApi',
      version: 3,
      docs: 'What calls cost, before they are signed.',
      methods: {
        query_call_info: apiMethod({
          inputs: { call, len: u32 },
          output: runtimeDispatchInfo,
          docs: 'Weight, class and fee of the call in a transaction of the given length.',
          run: ({ host }, { call: of, len }) => dispatchInfo(host, executive.infoOfCall(of, len), len, true),
        }),
        query_call_fee_details: apiMethod({
          inputs: { call, len: u32 },
          output: feeDetails,
          docs: 'The parts of the fee of the call in a transaction of the given length.',
          run: ({ host }, { call: of, len }) => details(host, executive.infoOfCall(of, len), len, true, 0n),
        }),
        ...conversions,
      },
    }),
  ];
}
