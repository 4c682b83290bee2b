/** What the glue puts into the engine before the guest is read: host functions by name, and text as bytes. */
import type { HostFunctionName } from '../host-functions.ts';
import { installText } from './text.ts';

export interface Engine extends Readonly<Record<HostFunctionName, (...values: unknown[]) => unknown>> {
  readonly textToBytes: (text: string) => Uint8Array;
  readonly bytesToText: (bytes: Uint8Array) => string;
}

export const engine = (globalThis as unknown as { readonly engine: Engine }).engine;

// Modules of the runtime make an encoder when they are read, so these must be there before.
installText({ encode: engine.textToBytes, decode: engine.bytesToText });
