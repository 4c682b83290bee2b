/** What a worker remembers of a fault that it plants. */
import { sessionId } from '../../runtime/primitives/attribution/ids.ts';
import { plantedFault } from '../../runtime/primitives/attribution/planted.ts';
import { inferenceReceipt, signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { type Infer, option, struct } from '../../runtime/primitives/scale/codec.ts';
import { transcript } from '../serving/transcript.ts';

/** A fault on its way. `receipt`: as it was settled, once the chain has bent it. */
export const plantedState = struct({
  session: sessionId,
  planted: plantedFault,
  /** The honest answer, as it would be settled and disclosed. */
  honest: inferenceReceipt,
  said: transcript,
  receipt: option(signedInferenceReceipt),
});
export type PlantedState = Infer<typeof plantedState>;
