/** What a worker remembers of a fault that it plants. */
import { plantedFault } from '../../runtime/primitives/attribution/planted.ts';
import { inferenceReceipt, signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { type Infer, option, struct, u64 } from '../../runtime/primitives/scale/codec.ts';
import { transcript } from '../serving/transcript.ts';

/** A fault on its way. `receipt`: as it was settled, once the chain has bent it. */
export const plantedState = struct({
  session: u64,
  planted: plantedFault,
  /** The honest answer, as it would be settled and disclosed. */
  honest: inferenceReceipt,
  said: transcript,
  receipt: option(signedInferenceReceipt),
});
export type PlantedState = Infer<typeof plantedState>;
