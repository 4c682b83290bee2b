/** The kernels over one WebAssembly memory, with the signatures that JavaScript calls. Addresses and strides are bytes. */
import { assemble } from './assembler.ts';
import { gemmKernel } from './gemm.ts';
import { ROW_KERNELS } from './rows.ts';

export interface Kernels {
  gemm(
    m: number,
    n: number,
    k: number,
    a: number,
    aRow: number,
    aStep: number,
    b: number,
    bTile: number,
    bRow: number,
    c: number,
    cRow: number,
    alpha: number,
    add: 0 | 1,
  ): void;
  rmsNorm(x: number, weight: number, y: number, roots: number, rows: number, width: number, eps: number): void;
  rmsNormBackward(x: number, weight: number, roots: number, dy: number, dx: number, rows: number, width: number): void;
  rotary(
    x: number,
    cosines: number,
    sines: number,
    rows: number,
    stride: number,
    heads: number,
    half: number,
    sign: 1 | -1,
  ): void;
  softmax(x: number, rows: number, stride: number, first: number, columns: number, scale: number): void;
  softmaxBackward(p: number, dp: number, rows: number, stride: number, columns: number, scale: number): void;
  gated(gate: number, up: number, out: number, count: number): void;
  gatedBackward(gate: number, up: number, d: number, dGate: number, dUp: number, count: number): void;
  crossEntropy(x: number, rows: number, stride: number, vocabulary: number, factors: number, out: number): void;
  add(y: number, x: number, count: number): void;
  transpose(from: number, fromStride: number, to: number, toStride: number, rows: number, columns: number): void;
}

export function instantiate(memory: WebAssembly.Memory): Kernels {
  const module = new WebAssembly.Module(assemble({ gemm: gemmKernel(), ...ROW_KERNELS }));
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels;
}
