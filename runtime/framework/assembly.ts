/** The outer types of a runtime, made of its pallets: calls, events, errors, hold and freeze reasons. */
import { type Codec, encode, lazy, mapped, named, snakeCase, tuple, u8, variants } from '../primitives/scale/codec.ts';
import type { TypeDef, VariantDef } from '../primitives/scale/type.ts';
import type { Weight } from '../primitives/types.ts';
import type { DispatchError, DispatchInfo, ErrorDef } from './dispatch.ts';
import { type CallDef, crateOf, type EventDef, type Pallet, type Reason } from './pallet.ts';
import type { RuntimeCall } from './runtime-call.ts';

// biome-ignore lint/suspicious/noExplicitAny: pallets with different genesis types stand side by side
export type AnyPallet = Pallet<any>;

export interface RuntimeEvent {
  readonly type: string;
  readonly value: { readonly type: string; readonly value?: unknown };
}

export interface Assembly {
  readonly name: string;
  readonly pallets: readonly AnyPallet[];
  readonly call: Codec<RuntimeCall>;
  readonly event: Codec<RuntimeEvent>;
  /** Metadata types of each pallet's own enums; undefined where it has none. */
  readonly types: ReadonlyMap<string, PalletTypes>;
  readonly errorType: TypeDef;
  readonly holdReasonType: TypeDef;
  readonly freezeReasonType: TypeDef;
  callDef(call: RuntimeCall): CallDef<unknown>;
  infoOf(call: RuntimeCall): DispatchInfo;
  /** The outer event that a pallet's event becomes. */
  outerEvent(event: EventDef<unknown>): { readonly pallet: number; readonly index: number };
  moduleError(def: ErrorDef): DispatchError;
  /** Pallet and error of a module error, for messages. */
  describeError(error: DispatchError): string;
}

export interface PalletTypes {
  readonly call?: TypeDef;
  readonly event?: TypeDef;
  readonly error?: TypeDef;
}

const withDocs = (type: TypeDef, docs: Readonly<Record<string, string>>): TypeDef => {
  if (type.shape.kind !== 'variant') return type;
  return {
    ...type,
    shape: {
      kind: 'variant',
      variants: type.shape.variants.map((each): VariantDef => ({ ...each, docs: docs[each.name] ?? '' })),
    },
  };
};

function palletCall(spec: AnyPallet): Codec<{ type: string; value?: unknown }> | undefined {
  const entries = Object.entries(spec.calls ?? {});
  if (entries.length === 0) return undefined;
  const codec = variants(
    Object.fromEntries(
      entries.map(([name, def]) => [snakeCase(name), [def.index, def.hasArgs ? def.args : null] as const]),
    ),
  ) as Codec<{ type: string; value?: unknown }>;
  return named(`${crateOf(spec)}::pallet::Call`, codec);
}

function palletEvent(spec: AnyPallet): Codec<{ type: string; value?: unknown }> | undefined {
  const entries = Object.entries(spec.events ?? {});
  if (entries.length === 0) return undefined;
  const codec = variants(Object.fromEntries(entries.map(([name, def]) => [name, [def.index, def.codec] as const])));
  return named(`${crateOf(spec)}::pallet::Event`, codec as Codec<{ type: string; value?: unknown }>);
}

function palletErrorType(spec: AnyPallet): TypeDef | undefined {
  const entries = Object.entries(spec.errors ?? {});
  if (entries.length === 0) return undefined;
  return {
    path: [crateOf(spec), 'pallet', 'Error'],
    shape: {
      kind: 'variant',
      variants: entries.map(([name, { index, docs }]) => ({ name, index, fields: [], docs })),
    },
  };
}

function reasonsType(runtime: string, name: 'HoldReason' | 'FreezeReason', pallets: readonly AnyPallet[]): TypeDef {
  return {
    path: [runtime, `Runtime${name}`],
    shape: {
      kind: 'variant',
      variants: pallets.flatMap((spec): VariantDef[] => {
        const reasons = Object.entries((name === 'HoldReason' ? spec.holdReasons : spec.freezeReasons) ?? {});
        if (reasons.length === 0) return [];
        const type: TypeDef = {
          path: [crateOf(spec), 'pallet', name],
          shape: {
            kind: 'variant',
            variants: reasons.map(([reason, { reason: index }]) => ({ name: reason, index, fields: [] })),
          },
        };
        return [{ name: spec.name, index: spec.index, fields: [{ type }] }];
      }),
    },
  };
}

function checkIndices(pallets: readonly AnyPallet[]): void {
  const unique = (what: string, indices: readonly number[]) => {
    if (new Set(indices).size !== indices.length) throw new Error(`an index is used twice: ${what}`);
  };
  unique(
    'pallets',
    pallets.map((spec) => spec.index),
  );
  for (const spec of pallets) {
    for (const kind of ['calls', 'events', 'errors'] as const) {
      const definitions = Object.values(spec[kind] ?? {}) as { index: number }[];
      unique(
        `${kind} of ${spec.name}`,
        definitions.map((def) => def.index),
      );
    }
  }
}

/** `name` is the first segment of the outer types' paths, e.g. `openledger_runtime`. */
export function assemble(name: string, pallets: readonly AnyPallet[]): Assembly {
  checkIndices(pallets);
  const types = new Map<string, PalletTypes>();
  const calls: Record<string, readonly [number, Codec<unknown>]> = {};
  const events: Record<string, readonly [number, Codec<unknown>]> = {};
  const callDefs = new Map<string, CallDef<unknown>>();
  const eventIndex = new Map<EventDef<unknown>, { pallet: number; index: number }>();
  const errorIndex = new Map<ErrorDef, { pallet: AnyPallet; name: string; index: number }>();
  const errorVariants: VariantDef[] = [];

  for (const spec of pallets) {
    const call = palletCall(spec);
    const event = palletEvent(spec);
    const error = palletErrorType(spec);
    const docsOf = (entries: Readonly<Record<string, { docs: string }>> = {}, rename = (each: string) => each) =>
      Object.fromEntries(Object.entries(entries).map(([each, { docs }]) => [rename(each), docs]));
    types.set(spec.name, {
      ...(call && { call: withDocs(call.type, docsOf(spec.calls, snakeCase)) }),
      ...(event && { event: withDocs(event.type, docsOf(spec.events)) }),
      ...(error && { error }),
    });
    const described = types.get(spec.name);
    if (call) calls[spec.name] = [spec.index, retyped(call, described?.call as TypeDef)];
    if (event) events[spec.name] = [spec.index, retyped(event, described?.event as TypeDef)];
    if (error) errorVariants.push({ name: spec.name, index: spec.index, fields: [{ type: error }] });
    for (const [each, def] of Object.entries(spec.calls ?? {})) callDefs.set(`${spec.name}.${snakeCase(each)}`, def);
    for (const def of Object.values(spec.events ?? {})) eventIndex.set(def, { pallet: spec.index, index: def.index });
    for (const [each, def] of Object.entries(spec.errors ?? {})) {
      errorIndex.set(def, { pallet: spec, name: each, index: def.index });
    }
  }

  const callDef = (outer: RuntimeCall): CallDef<unknown> => {
    const def = callDefs.get(`${outer.type}.${outer.value.type}`);
    if (def === undefined) throw new Error(`no call ${outer.type}.${outer.value.type}`);
    return def;
  };
  /** What calls announce is asked for on every level around them, and follows from the call alone. */
  const known = new WeakMap<RuntimeCall, DispatchInfo>();
  const infoOf = (outer: RuntimeCall): DispatchInfo => {
    const before = known.get(outer);
    if (before !== undefined) return before;
    const info = callDef(outer).info(outer.value.value ?? {}, infoOf);
    known.set(outer, info);
    return info;
  };

  return {
    name,
    pallets,
    call: named(`${name}::RuntimeCall`, variants(calls)) as unknown as Codec<RuntimeCall>,
    event: named(`${name}::RuntimeEvent`, variants(events)) as unknown as Codec<RuntimeEvent>,
    types,
    errorType: { path: [name, 'RuntimeError'], shape: { kind: 'variant', variants: errorVariants } },
    holdReasonType: reasonsType(name, 'HoldReason', pallets),
    freezeReasonType: reasonsType(name, 'FreezeReason', pallets),
    callDef,
    infoOf,
    outerEvent(event) {
      const found = eventIndex.get(event);
      if (found === undefined) throw new Error('an event was emitted that no pallet lists');
      return found;
    },
    moduleError(def) {
      const found = errorIndex.get(def);
      if (found === undefined) throw new Error('an error was raised that no pallet lists');
      return {
        type: 'Module',
        value: { index: found.pallet.index, error: new Uint8Array([found.index, 0, 0, 0]) },
      };
    },
    describeError(error) {
      if (error.type !== 'Module') return 'value' in error ? `${error.type}.${error.value.type}` : error.type;
      const spec = pallets.find(({ index }) => index === error.value.index);
      const entry = Object.entries(spec?.errors ?? {}).find(([, def]) => def.index === error.value.error[0]);
      return `${spec?.name ?? error.value.index}.${entry?.[0] ?? error.value.error[0]}`;
    },
  };
}

const retyped = <T>(codec: Codec<T>, type: TypeDef): Codec<T> => Object.create(codec, { type: { value: type } });

/** The metadata of these stands in the assembly; their encoding needs nothing but the two indices. */
export const outerReason = (name: 'RuntimeHoldReason' | 'RuntimeFreezeReason'): Codec<Reason> =>
  retyped(
    mapped(
      tuple(u8, u8),
      ([pallet, reason]): Reason => ({ pallet, reason }),
      ({ pallet, reason }): [number, number] => [pallet, reason],
    ),
    { shape: { kind: 'outer', name } },
  );

/** The bytes that calls within calls were decoded from. */
const decodedFrom = new WeakMap<RuntimeCall, Uint8Array>();

/**
 * The outer call as an argument of a call (`Box<RuntimeCall>`): looked up when first used, since the calls of the whole
 * runtime contain it. It keeps the bytes that it was decoded from, so that no level encodes all levels below it again.
 */
export function outerCall(resolve: () => Codec<RuntimeCall>): Codec<RuntimeCall> {
  const inner = lazy(resolve);
  return {
    type: { shape: { kind: 'outer', name: 'RuntimeCall' } },
    minSize: inner.minSize,
    encodeTo(sink, value) {
      const known = decodedFrom.get(value);
      if (known === undefined) inner.encodeTo(sink, value);
      else sink.bytes(known);
    },
    decodeFrom(source) {
      const start = source.offset;
      const decoded = inner.decodeFrom(source);
      decodedFrom.set(decoded, source.since(start));
      return decoded;
    },
  };
}

/** What pallets whose calls take calls are made with. */
export interface OuterCalls {
  readonly codec: Codec<RuntimeCall>;
}

/** A call within a call as bytes: those that it was decoded from, without a copy. */
export const encodedCall = (codec: Codec<RuntimeCall>, inner: RuntimeCall): Uint8Array =>
  decodedFrom.get(inner) ?? encode(codec, inner);

/** Picoseconds for each byte of a call that is encoded, copied or hashed. */
const PS_PER_BYTE = 5_000n;

/** Weight of handling a call within a call as bytes: what hashes, keeps or decodes one adds this to its own. */
export const byCallLength = (codec: Codec<RuntimeCall>, inner: RuntimeCall): Weight => ({
  refTime: PS_PER_BYTE * BigInt(encodedCall(codec, inner).length),
  proofSize: 0n,
});
