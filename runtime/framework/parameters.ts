/**
 * Parameters that root can set: codec, default, bounds, storage, event, call, constants and genesis of one definition.
 * Each field says between which values it may lie, so that no vote can set a number that later makes a block
 * impossible or heavy. The bounds are checked when parameters are set, by root and by the genesis alike.
 *
 * ```ts
 * const parameters = boundedParameters('openledger_primitives::attribution::AuditParameters', {
 *   commitBlocks: { codec: u32, initial: 20, min: 2, max: 28_800, docs: 'Blocks in which auditors commit.' },
 *   fee: { codec: balance, initial: 10n ** 17n, min: 0n, max: 10n ** 24n, docs: 'What each auditor is paid.' },
 * });
 * export type AuditParameters = ParametersOf<typeof parameters>;
 * const store = storage('Audits', { Parameters: parameters.item });
 * const events = { ParametersChanged: parameters.changed(4) };
 * const errors = { BadParameters: parameters.refused(9) };
 * const calls = { setParameters: parameters.setter(2, events.ParametersChanged, errors.BadParameters) };
 * pallet({ constants: { ...parameters.constants }, genesis: ({ host }, config) => parameters.begin(host, config) });
 * ```
 */
import type { Host } from '../host.ts';
import { type Codec, named, type StructValue, struct } from '../primitives/scale/codec.ts';
import { cost, type ErrorDef, ensure, ensureRoot, error } from './dispatch.ts';
import { type CallDef, type ConstantDef, call, constant, type EventDef, event } from './pallet.ts';
import { type ValueItem, value } from './storage.ts';

/** One parameter. `min` and `max` are values that it may have. */
export interface Bounded<T extends number | bigint> {
  readonly codec: Codec<T>;
  readonly initial: NoInfer<T>;
  readonly min: NoInfer<T>;
  readonly max: NoInfer<T>;
  readonly docs: string;
}

type AnyBounded = Bounded<number> | Bounded<bigint>;
type BoundedFields = Readonly<Record<string, AnyBounded>>;
type CodecsOf<F extends BoundedFields> = { [K in keyof F]: F[K]['codec'] };
type Values<F extends BoundedFields> = StructValue<CodecsOf<F>>;
/** As chain specs write them: any of the fields, amounts as decimal strings too. */
export type ParametersConfig<P> = { readonly [K in keyof P]?: P[K] | string } | undefined;

export interface BoundedParameters<P> {
  readonly codec: Codec<P>;
  readonly initial: P;
  /** The storage item `Parameters`. */
  readonly item: ValueItem<P, P>;
  /** `MinParameters` and `MaxParameters`, for the metadata. */
  readonly constants: Readonly<Record<'MinParameters' | 'MaxParameters', ConstantDef>>;
  /** Names of the fields that are out of bounds, or of the rule between fields that does not hold. */
  faults(next: P): readonly string[];
  get(host: Host): P;
  changed(index: number): EventDef<{ parameters: P }>;
  refused(index: number): ErrorDef;
  /** The call `set_parameters`, for root. */
  setter(index: number, changed: EventDef<{ parameters: P }>, refused: ErrorDef): CallDef<{ parameters: P }>;
  /** Writes the genesis state: defaults with what the chain spec says. Throws an `Error` that names what is wrong. */
  begin(host: Host, config: ParametersConfig<P>): void;
}
export type ParametersOf<B> = B extends BoundedParameters<infer P> ? P : never;

/** Rules between fields, each by a name that an operator understands. */
export type Rules<P> = Readonly<Record<string, (next: P) => boolean>>;

/** `path` is the type's path in the metadata. Throws where a default or a bound breaks the rules itself. */
export function boundedParameters<const F extends BoundedFields>(
  path: string,
  fields: F,
  rules: Rules<Values<F>> = {},
): BoundedParameters<Values<F>> {
  type P = Values<F>;
  const entries = Object.entries(fields);
  const codec = named(
    path,
    struct(Object.fromEntries(entries.map(([name, field]) => [name, field.codec])) as CodecsOf<F>),
  ) as Codec<P>;
  const each = (pick: (field: AnyBounded) => number | bigint): P =>
    Object.fromEntries(entries.map(([name, field]) => [name, pick(field)])) as P;
  const initial = each((field) => field.initial);

  const faults = (next: P): readonly string[] => {
    const given = next as Readonly<Record<string, number | bigint>>;
    const outside = entries.flatMap(([name, { min, max }]) => {
      const chosen = given[name];
      return chosen !== undefined && chosen >= min && chosen <= max ? [] : [`${name} must lie in ${min} … ${max}`];
    });
    if (outside.length > 0) return outside;
    return Object.entries(rules).flatMap(([rule, holds]) => (holds(next) ? [] : [rule]));
  };
  const wrong = faults(initial);
  if (wrong.length > 0) throw new Error(`the defaults of ${path} break its bounds: ${wrong.join(', ')}`);

  const item = value<P>(codec, initial, 'What root can change.');
  const docs = entries.map(([name, field]) => `${name}: ${field.docs}`).join('\n');
  return {
    codec,
    initial,
    item,
    faults,
    constants: {
      MinParameters: constant(
        codec,
        each((field) => field.min),
        'The least that each parameter can be set to.',
      ),
      MaxParameters: constant(
        codec,
        each((field) => field.max),
        'The most that each parameter can be set to.',
      ),
    },
    get: (host) => item.get(host),
    changed: (index) => event(index, { parameters: codec }, 'Root changed the parameters.'),
    refused: (index) => error(index, 'A parameter is out of its bounds, or two of them contradict each other.'),
    setter: (index, changed, refused) =>
      call({
        index,
        args: { parameters: codec },
        weight: cost(20_000_000n, 0, 1),
        class: 'Operational',
        docs: `Change the parameters. Root only.\n${docs}`,
        run({ origin, host, emit }, { parameters: next }) {
          ensureRoot(origin);
          ensure(faults(next).length === 0, refused);
          item.put(host, next);
          emit(changed, { parameters: next });
        },
      }),
    begin(host, config) {
      if (config === undefined) return;
      const next = { ...initial, ...read(path, fields, config) };
      const found = faults(next);
      if (found.length > 0) throw new Error(`${path}: ${found.join(', ')}`);
      item.put(host, next);
    },
  };
}

/** Values of a chain spec, with amounts turned into integers. */
function read<F extends BoundedFields>(path: string, fields: F, config: object): Partial<Values<F>> {
  const read = Object.entries(config).map(([name, given]: [string, unknown]) => {
    const field = fields[name];
    if (field === undefined) throw new Error(`${path}: there is no parameter ${name}`);
    const wanted = typeof field.initial;
    const parsed = wanted === 'bigint' && isAmount(given) ? BigInt(given) : given;
    const isInteger = wanted === 'bigint' ? typeof parsed === 'bigint' : Number.isSafeInteger(parsed);
    if (!isInteger) throw new Error(`${path}: ${name} must be an integer, not ${String(given)}`);
    return [name, parsed] as const;
  });
  return Object.fromEntries(read) as Partial<Values<F>>;
}

const isAmount = (given: unknown): given is string | number =>
  (typeof given === 'string' && /^[0-9]{1,39}$/.test(given)) ||
  (typeof given === 'number' && Number.isSafeInteger(given));
