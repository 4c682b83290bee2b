/**
 * Two modules become one: what each imports of the other is called directly, what neither has stays an import. The second
 * module's memory is the first one's.
 */
import { WasmFormatError, type WasmModule } from './binary.ts';
import { rewriteBody, type Substitutes } from './lower.ts';

export interface Linked {
  readonly module: WasmModule;
  /** Indices of the second module's global variables in the linked one. */
  readonly secondGlobal: (index: number) => number;
}

const FUNCTION = 0;
const GLOBAL = 3;

interface Side {
  readonly module: WasmModule;
  readonly firstType: number;
  readonly firstGlobal: number;
  /** Where the functions that it defines begin in the linked module. */
  readonly firstDefined: number;
}

const exported = (module: WasmModule, kind: number): Map<string, number> =>
  new Map(module.exports.filter((each) => each.kind === kind).map(({ name, index }) => [name, index]));

const key = ({ module, name }: { readonly module: string; readonly name: string }): string => `${module}.${name}`;

/**
 * `provides`: under which module names each of the two is imported by the other. `substitutes` are names of the second module's
 * exports that stand in for instructions of the first. Throws {@link WasmFormatError} where an import of the other is missing.
 */
export function link(
  first: WasmModule,
  second: WasmModule,
  provides: { readonly first: readonly string[]; readonly second: readonly string[] },
  substitutes: (exported: (name: string) => number) => Substitutes,
): Linked {
  // What stays an import: each function of the host once, in the order in which it is met.
  const outer = new Map<string, { module: string; name: string; type: number }>();
  const stays = (side: Side, names: readonly string[], exports: ReadonlyMap<string, number>): void => {
    for (const { module, name, type } of side.module.imports) {
      if (names.includes(module) && exports.has(name)) continue;
      if (module !== 'env') throw new WasmFormatError(`nobody provides ${module}.${name}`);
      outer.set(key({ module, name }), { module, name, type: side.firstType + type });
    }
  };
  const firstExports = exported(first, FUNCTION);
  const secondExports = exported(second, FUNCTION);
  const blank = { firstDefined: 0 };
  const a: Side = { module: first, firstType: 0, firstGlobal: 0, ...blank };
  const b: Side = { module: second, firstType: first.types.length, firstGlobal: first.globals.length, ...blank };
  stays(a, provides.second, secondExports);
  stays(b, provides.first, firstExports);
  const imports = [...outer.values()];
  const importIndex = new Map([...outer.keys()].map((name, index) => [name, index]));
  const sideA: Side = { ...a, firstDefined: imports.length };
  const sideB: Side = { ...b, firstDefined: imports.length + first.functions.length };

  /** Where a function of `side` is in the linked module: its own, the other side's, or an import. */
  const locate = (side: Side, other: Side, names: readonly string[], exports: ReadonlyMap<string, number>) => {
    const find = (index: number, from: Side, depth = 0): number => {
      const inner = index - from.module.imports.length;
      if (inner >= 0) return from.firstDefined + inner;
      const { module, name } = from.module.imports[index]!;
      const found = from === side && names.includes(module) ? exports.get(name) : undefined;
      if (found !== undefined && depth === 0) return find(found, other, 1);
      return importIndex.get(key({ module, name }))!;
    };
    return (index: number): number => find(index, side);
  };
  const functionOfA = locate(sideA, sideB, provides.second, secondExports);
  const functionOfB = locate(sideB, sideA, provides.first, firstExports);
  const named = (name: string): number => {
    const index = secondExports.get(name);
    if (index === undefined) throw new WasmFormatError(`the glue exports no ${name}`);
    return functionOfB(index);
  };

  const typeOfB = (index: number): number => b.firstType + index;
  const secondGlobal = (index: number): number => b.firstGlobal + index;
  const same = (index: number): number => index;
  const inFirst = { type: same, function: functionOfA, global: same, substitutes: substitutes(named) };
  const inSecond = { type: typeOfB, function: functionOfB, global: secondGlobal };
  const moved = (module: WasmModule, locateFunction: (index: number) => number, globals: (index: number) => number) =>
    module.exports
      .filter(({ kind }) => module === first || kind === FUNCTION || kind === GLOBAL)
      .map(({ name, kind, index }) => ({
        name,
        kind,
        index: kind === FUNCTION ? locateFunction(index) : kind === GLOBAL ? globals(index) : index,
      }));
  return {
    secondGlobal,
    module: {
      types: [...first.types, ...second.types],
      imports,
      functions: [...first.functions, ...second.functions.map(typeOfB)],
      tables: first.tables,
      memoryPages: first.memoryPages,
      globals: [...first.globals, ...second.globals],
      exports: [...moved(first, functionOfA, same), ...moved(second, functionOfB, secondGlobal)],
      elements: first.elements.map((each) => ({ ...each, functions: each.functions.map(functionOfA) })),
      bodies: [
        ...first.bodies.map((body) => rewriteBody(body, inFirst)),
        ...second.bodies.map((body) => rewriteBody(body, inSecond)),
      ],
      data: first.data,
    },
  };
}
