/** The folders are the architecture: what each may import, and that no module leads back to itself. */
import { glob, readFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import t from 'tap';

const root = new URL('..', import.meta.url).pathname;
const FOLDERS = ['runtime', 'consensus', 'p2p', 'rpc', 'node', 'gpu-worker'] as const;

/** The layer of interfaces that the node offers to consensus and to the edges. It stands below all of them. */
const PORTS = /^node\/ports\//;
/** By folder: what its modules may import beside their own folder's. `node` alone puts everything together. */
const ALLOWED: Readonly<Record<(typeof FOLDERS)[number], readonly RegExp[]>> = {
  runtime: [],
  consensus: [/^runtime\/(primitives\/|host\.ts$)/, PORTS],
  p2p: [/^runtime\/(primitives\/|host\.ts$)/, /^consensus\//, PORTS],
  rpc: [/^runtime\//, PORTS],
  'gpu-worker': [/^runtime\//, /^rpc\/client\//, PORTS],
  node: [/^(runtime|consensus|p2p|rpc|gpu-worker)\//],
};

interface Import {
  readonly to: string;
  /** Types alone: nothing is loaded by it. */
  readonly typeOnly: boolean;
  /** Loaded when it is called for, not with the module. */
  readonly late: boolean;
}

const STATIC = /^(?:import|export)\s+(type\s+)?(?:[^'";]*?\s+from\s+)?'([^']+)'/gm;
const LATE = /\bimport\('([^']+)'\)/g;

async function modules(): Promise<Map<string, Import[]>> {
  const found = new Map<string, Import[]>();
  for (const folder of FOLDERS) {
    for await (const file of glob(`${folder}/**/*.ts`, { cwd: root })) {
      if (file.endsWith('.d.ts')) continue;
      const text = await readFile(join(root, file), 'utf8');
      const local = (specifier: string) => relative(root, join(root, dirname(file), specifier));
      const imports = [
        ...[...text.matchAll(STATIC)].map(([, type, to]) => ({ to: to!, typeOnly: type !== undefined, late: false })),
        ...[...text.matchAll(LATE)].map(([, to]) => ({ to: to!, typeOnly: false, late: true })),
      ];
      found.set(
        file,
        imports.filter(({ to }) => to.startsWith('.')).map((each) => ({ ...each, to: local(each.to) })),
      );
    }
  }
  return found;
}

t.test('dependencies point one way', async (test) => {
  const graph = await modules();
  test.ok(graph.size > 200, 'the modules were found');
  const wrong = [...graph].flatMap(([file, imports]) => {
    const folder = file.split('/', 1)[0] as (typeof FOLDERS)[number];
    const may = ({ to }: Import) => to.startsWith(`${folder}/`) || ALLOWED[folder].some((each) => each.test(to));
    return imports.filter((each) => !may(each)).map(({ to }) => `${file} → ${to}`);
  });
  test.same(wrong, []);
});

t.test('no module leads back to itself', async (test) => {
  const graph = await modules();
  const done = new Set<string>();
  const path: string[] = [];
  const cycles: string[] = [];
  const visit = (file: string): void => {
    const at = path.indexOf(file);
    if (at >= 0) cycles.push([...path.slice(at), file].join(' → '));
    if (at >= 0 || done.has(file)) return;
    path.push(file);
    for (const { to } of graph.get(file) ?? []) visit(to);
    path.pop();
    done.add(file);
  };
  for (const file of graph.keys()) visit(file);
  test.same(cycles, []);
});
