/** `payment_*`: what a transaction costs, asked of the runtime. */
import { RuntimeCallError } from '../../node/ports/chain.ts';
import { concatBytes } from '../../runtime/primitives/bytes.ts';
import { decode, encode, option, struct, u8, u32 } from '../../runtime/primitives/scale/codec.ts';
import { balance, type Hash, weight } from '../../runtime/primitives/types.ts';
import { RpcError } from '../server/errors.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { hash, hex, optional } from '../server/params.ts';
import { RawJson } from '../server/result.ts';
import type { Session } from '../server/session.ts';
import type { ChainView } from './chain-view.ts';
import { extrinsicOf } from './transactions.ts';

interface PaymentContext {
  readonly view: ChainView;
}

const { method } = definitions<PaymentContext>();

const CLASSES = ['normal', 'operational', 'mandatory'];
const dispatchInfo = struct({ weight, class: u8, partialFee: balance });
const feeDetails = struct({
  inclusionFee: option(struct({ baseFee: balance, lenFee: balance, adjustedWeightFee: balance })),
  tip: balance,
});

async function ask(
  view: ChainView,
  session: Session,
  name: string,
  wire: Uint8Array,
  at: Hash | undefined,
): Promise<Uint8Array> {
  extrinsicOf(wire);
  const method = `TransactionPaymentApi_${name}`;
  try {
    return await view.call(session, at ?? view.best(), method, concatBytes(wire, encode(u32, wire.length)));
  } catch (problem) {
    if (!(problem instanceof RuntimeCallError) || problem.code === 'UNKNOWN_BLOCK') throw problem;
    if (problem.code === 'BAD_PARAMETERS') throw new RpcError(2, 'Unable to query dispatch info.', problem.message);
    throw new RpcError(1, 'Unable to query dispatch info.', problem.message);
  }
}

const quantity = (value: bigint): string => `0x${value.toString(16)}`;

const methods = [
  method('payment_queryInfo', [hex('extrinsic'), optional(hash('at'))], async ({ view }, [wire, at], session) => {
    const info = decode(dispatchInfo, await ask(view, session, 'query_info', wire, at));
    // Weights are 64 bits wide, and numbers in Substrate's JSON.
    return new RawJson(
      `{"weight":{"ref_time":${info.weight.refTime},"proof_size":${info.weight.proofSize}},` +
        `"class":"${CLASSES[info.class] ?? 'normal'}","partialFee":"${info.partialFee}"}`,
    );
  }),
  method('payment_queryFeeDetails', [hex('extrinsic'), optional(hash('at'))], async ({ view }, [wire, at], session) => {
    const { inclusionFee } = decode(feeDetails, await ask(view, session, 'query_fee_details', wire, at));
    return {
      inclusionFee:
        inclusionFee === undefined
          ? null
          : {
              baseFee: quantity(inclusionFee.baseFee),
              lenFee: quantity(inclusionFee.lenFee),
              adjustedWeightFee: quantity(inclusionFee.adjustedWeightFee),
            },
    };
  }),
];

export const paymentGroup = (context: PaymentContext): Group => group(context, methods);
