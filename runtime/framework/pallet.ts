/** Pallets as typed data: calls, events, errors, constants, hooks, genesis, runtime APIs. */
import type { Host } from '../host.ts';
import { type Codec, type StructValue, struct } from '../primitives/scale/codec.ts';
import type { Weight } from '../primitives/types.ts';
import type { ValidTransaction } from '../primitives/validity.ts';
import type { DispatchClass, DispatchInfo, ErrorDef, PostDispatchInfo } from './dispatch.ts';
import type { CallContext, Env, EventDef } from './env.ts';
import { enterPlace, hasPlace } from './place.ts';
import type { RuntimeCall } from './runtime-call.ts';
import type { StorageSet } from './storage.ts';
import type { AnyQueue } from './work-queue.ts';

export type { CallContext, Env, EventDef } from './env.ts';

type FieldCodecs = Parameters<typeof struct>[0];

// ---- events --------------------------------------------------------------------------------------------------

export function event(index: number, docs: string): EventDef<undefined>;
export function event<F extends FieldCodecs>(index: number, fields: F, docs: string): EventDef<StructValue<F>>;
export function event(index: number, fields: FieldCodecs | string, docs = ''): EventDef<never> {
  return typeof fields === 'string'
    ? { index, codec: null, docs: fields }
    : { index, codec: struct(fields) as Codec<never>, docs };
}

// ---- calls ---------------------------------------------------------------------------------------------------

type InfoOf = (call: RuntimeCall) => DispatchInfo;
type Announced = Weight | { readonly weight: Weight; readonly class?: DispatchClass; readonly paysFee?: boolean };

export interface CallDef<A> {
  readonly index: number;
  readonly args: Codec<A>;
  readonly hasArgs: boolean;
  readonly docs: string;
  info(args: A, infoOf: InfoOf): DispatchInfo;
  run(context: CallContext, args: A): PostDispatchInfo | undefined;
}

interface CallSpec<F extends FieldCodecs> {
  /** Never reused, even when the call is gone. */
  readonly index: number;
  readonly args: F;
  readonly weight: Announced | ((args: StructValue<F>, infoOf: InfoOf) => Announced);
  readonly class?: DispatchClass;
  readonly paysFee?: boolean;
  readonly docs: string;
  // biome-ignore lint/suspicious/noConfusingVoidType: most calls have nothing to say about their cost afterwards
  run(context: CallContext, args: StructValue<F>): PostDispatchInfo | void;
}

export function call<F extends FieldCodecs>(spec: CallSpec<F>): CallDef<StructValue<F>> {
  const { weight } = spec;
  return {
    index: spec.index,
    args: struct(spec.args),
    hasArgs: Object.keys(spec.args).length > 0,
    docs: spec.docs,
    info(args, infoOf) {
      const announced = typeof weight === 'function' ? weight(args, infoOf) : weight;
      const full = 'refTime' in announced ? { weight: announced } : announced;
      return {
        weight: full.weight,
        class: full.class ?? spec.class ?? 'Normal',
        paysFee: full.paysFee ?? spec.paysFee ?? true,
      };
    },
    run: (context, args) => spec.run(context, args) ?? undefined,
  };
}

// ---- constants, hooks, inherents, runtime APIs ---------------------------------------------------------------

export interface ConstantDef {
  readonly codec: Codec<unknown>;
  /** Constants that the chain spec sets are read from the state. */
  readonly value: (host: Host) => unknown;
  readonly fromState: boolean;
  readonly docs: string;
}

export const constant = <T>(codec: Codec<T>, value: T | ((host: Host) => T), docs: string): ConstantDef => ({
  codec: codec as Codec<unknown>,
  value: typeof value === 'function' ? (value as (host: Host) => T) : () => value,
  fromState: typeof value === 'function',
  docs,
});

/**
 * The executive guards each hook: it runs in a storage transaction of its own, and whatever it throws undoes what it
 * did, is told by the event `Work.HookFailed`, and the block goes on. Lists that others can fill belong into a
 * work queue, not into a hook.
 */
export interface Hooks {
  /**
   * For hooks that judge what the author put into the block (its slot, its time): an `InvalidBlock` that they throw
   * makes the block invalid. They must depend on nothing that a transaction can set.
   */
  readonly judgesBlocks?: true;
  /** Before any extrinsic. Returns its weight. */
  onInitialize?(env: Env, number: number): Weight;
  /** After the extrinsics, if weight is left. Returns what it used, at most `remaining`. */
  onIdle?(env: Env, number: number, remaining: Weight): Weight;
  /** Last of all; its weight is part of what `onInitialize` returned. */
  onFinalize?(env: Env, number: number): void;
}

/** Data that the block's author puts in without a signature. */
export interface InherentDef {
  /** Eight bytes, as in Substrate (`timstap0`). */
  readonly identifier: string;
  /** The call made of the author's data; undefined if there is none. */
  create(env: Env, data: Uint8Array): { readonly type: string; readonly value?: unknown } | undefined;
  /** Checks the call of a block against this node's own data: undefined when fine. */
  check(env: Env, args: unknown, data: Uint8Array): { readonly fatal: boolean; readonly message: string } | undefined;
  /** Name of the call, as in {@link RuntimeCall}. */
  readonly call: string;
  /** A block without it is invalid. */
  readonly required: boolean;
}

/** A call that needs no signer, since what it carries proves itself. */
export interface UnsignedDef {
  /** Name of the call, as in {@link RuntimeCall}. */
  readonly call: string;
  /** For the pool and, once more, before it runs in a block. Throws `TransactionRefused`; changes nothing. */
  validate(env: Env, args: unknown): ValidTransaction;
}

export interface ApiMethod {
  readonly inputs: readonly (readonly [name: string, codec: Codec<unknown>])[];
  readonly output: Codec<unknown>;
  readonly docs: string;
  run(env: Env, inputs: Record<string, unknown>): unknown;
}

/** An API method that knows its own types: what clients call it with, and what they get. */
export interface TypedApiMethod<I, O> extends ApiMethod {
  readonly arguments: Codec<I>;
  readonly result: Codec<O>;
}

export function apiMethod<F extends FieldCodecs, O>(method: {
  readonly inputs: F;
  readonly output: Codec<O>;
  readonly docs: string;
  run(env: Env, inputs: StructValue<F>): O;
}): TypedApiMethod<StructValue<F>, O> {
  return {
    inputs: Object.entries(method.inputs) as [string, Codec<unknown>][],
    output: method.output as Codec<unknown>,
    arguments: struct(method.inputs),
    result: method.output,
    docs: method.docs,
    run: (env, inputs) => method.run(env, inputs as StructValue<F>),
  };
}

export interface RuntimeApi {
  readonly name: string;
  readonly version: number;
  readonly docs: string;
  /** Names in snake_case: `Api_method` is what is called. */
  readonly methods: Readonly<Record<string, ApiMethod>>;
}

/** An API with the types of its own methods, which know the names that they are called by. */
export function runtimeApi<const A extends RuntimeApi>(api: A): A {
  for (const [name, method] of Object.entries(api.methods)) {
    // A method that several APIs share is called by the name of the first one.
    if (!hasPlace(method)) enterPlace(method, { pallet: api.name, palletIndex: -1, name });
  }
  return api;
}

// ---- pallets -------------------------------------------------------------------------------------------------

/** Reasons for holds or freezes: the pallet's index and the reason's, two bytes. */
export interface Reason {
  readonly pallet: number;
  readonly reason: number;
}

export interface PalletSpec<G> {
  readonly name: string;
  readonly index: number;
  readonly docs?: string;
  /** Path of its types in the metadata; `pallet_<name>` unless given. */
  readonly crate?: string;
  readonly storage?: StorageSet;
  // biome-ignore lint/suspicious/noExplicitAny: definitions of all shapes stand side by side
  readonly calls?: Readonly<Record<string, CallDef<any>>>;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly events?: Readonly<Record<string, EventDef<any>>>;
  readonly errors?: Readonly<Record<string, ErrorDef>>;
  readonly constants?: Readonly<Record<string, ConstantDef>>;
  readonly holdReasons?: Readonly<Record<string, Reason>>;
  readonly freezeReasons?: Readonly<Record<string, Reason>>;
  readonly hooks?: Hooks;
  /** Work that the pallet does later, block by block. */
  readonly work?: readonly AnyQueue[];
  readonly inherent?: InherentDef;
  readonly unsigned?: UnsignedDef;
  readonly apis?: readonly RuntimeApi[];
  /** Writes the pallet's part of the genesis state. */
  genesis?(env: Env, config: G): void;
}

export type Pallet<G = undefined> = PalletSpec<G>;

/** A pallet with the types of its own definitions. Its calls, events and errors know their place from here on. */
// biome-ignore lint/suspicious/noExplicitAny: genesis configurations of all shapes
export function pallet<const S extends PalletSpec<any>>(spec: S): S {
  for (const kind of ['calls', 'events', 'errors'] as const) {
    for (const [name, definition] of Object.entries(spec[kind] ?? {})) {
      enterPlace(definition, { pallet: spec.name, palletIndex: spec.index, name });
    }
  }
  return spec;
}

/** The crate name under which wallets and explorers look for a pallet's types. */
export const crateOf = (spec: { readonly name: string; readonly crate?: string }): string =>
  spec.crate ?? `pallet_${spec.name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase()}`;
