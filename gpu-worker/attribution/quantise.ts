/** From a reduced vector to an int8 row with a fixed-point scale (docs/method.md, step 5). */
import { SCALE_ONE } from '../../runtime/primitives/attribution/limits.ts';

export interface QuantisedRow {
  /** σ in units of 2^−32. */
  readonly scale: number;
  readonly values: Int8Array;
}

/** Scales to unit norm, then `σ = max|z|/127`, `r = round(z/σ)` with halves away from zero. Zero stays zero. */
export function quantise(z: Float64Array): QuantisedRow {
  const values = new Int8Array(z.length);
  let squares = 0;
  let largest = 0;
  for (let j = 0; j < z.length; j++) {
    squares += z[j]! * z[j]!;
    largest = Math.max(largest, Math.abs(z[j]!));
  }
  if (largest === 0) return { scale: 0, values };
  for (let j = 0; j < z.length; j++) {
    const size = Math.floor((Math.abs(z[j]!) * 127) / largest + 0.5);
    values[j] = z[j]! < 0 ? -size : size;
  }
  return { scale: Math.round((largest / Math.sqrt(squares) / 127) * SCALE_ONE), values };
}
