/** What the engine reads before it is frozen: the runtime, made once, and the function through which its methods are called. */
import './engine.ts';
import { blake2b } from '@noble/hashes/blake2.js';
import { blake3 } from '@noble/hashes/blake3.js';
import { createRuntime } from '../../../runtime/runtime.ts';
import { host } from './host.ts';

const runtime = createRuntime({ blake2_64: (data) => blake2b(data, { dkLen: 8 }), blake3 });

/** In the order of the exported entry points. */
export const methods = runtime.apis.flatMap((api) => Object.keys(api.methods).map((name) => `${api.name}_${name}`));

export const dispatch = (method: number, parameters: Uint8Array): Uint8Array =>
  runtime.call(host, methods[method]!, parameters);
