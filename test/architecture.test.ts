/** The folders are the architecture: what each may import, and that no module leads back to itself. */
import { glob, readFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import t from 'tap';

const root = new URL('..', import.meta.url).pathname;
const FOLDERS = ['runtime', 'consensus', 'p2p', 'rpc', 'node', 'gpu-worker'] as const;

/** The layer of interfaces that the node offers to consensus and to the edges. It stands below all of them. */
const PORTS = /^node\/ports\//;
/** By folder: what its modules may import beside their own folder's. `node` alone puts everything together. The first that fits holds. */
const ALLOWED: Readonly<Record<string, readonly RegExp[]>> = {
  'node/ports': [/^runtime\/primitives\//],
  'rpc/client': [/^runtime\//, PORTS],
  runtime: [],
  consensus: [/^runtime\/(primitives\/|host\.ts$)/, PORTS],
  p2p: [/^runtime\/(primitives\/|host\.ts$)/, /^consensus\//, PORTS],
  rpc: [/^runtime\//, PORTS],
  'gpu-worker': [/^runtime\//, /^rpc\/client\//, PORTS],
  node: [/^(runtime|consensus|p2p|rpc|gpu-worker)\//],
};

const STATIC = /^(?:import|export)\s+(?:type\s+)?(?:[^'";]*?\s+from\s+)?'([^']+)'/gm;
const LATE = /\bimport\('([^']+)'\)/g;

async function modules(): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  for (const folder of FOLDERS) {
    for await (const file of glob(`${folder}/**/*.ts`, { cwd: root })) {
      if (file.endsWith('.d.ts')) continue;
      const text = await readFile(join(root, file), 'utf8');
      const local = (specifier: string) => relative(root, join(root, dirname(file), specifier));
      const imports = [
        ...[...text.matchAll(STATIC)].map(([, to]) => to!),
        ...[...text.matchAll(LATE)].map(([, to]) => to!),
      ];
      found.set(file, imports.filter((to) => to.startsWith('.')).map(local));
    }
  }
  return found;
}

t.test('dependencies point one way', async (test) => {
  const graph = await modules();
  test.ok(graph.size > 200, 'the modules were found');
  const wrong = [...graph].flatMap(([file, imports]) => {
    const [folder, allowed] = Object.entries(ALLOWED).find(([each]) => file.startsWith(`${each}/`))!;
    const may = (to: string) => to.startsWith(`${folder}/`) || allowed.some((each) => each.test(to));
    return imports.filter((to) => !may(to)).map((to) => `${file} → ${to}`);
  });
  test.same(wrong, []);
});

const RELATIVE_PYTHON = /^\s*from \.(\w*) import ([^#\n(]+|\([^)]*\))/gm;

/** The modules of the torch engine's package and which of each other they import, for types alone too. */
async function pythonModules(): Promise<Map<string, string[]>> {
  const folder = 'gpu-worker/engines/torch/openledger_torch';
  const texts = new Map<string, string>();
  for await (const file of glob('*.py', { cwd: join(root, folder) })) {
    texts.set(file.replace(/\.py$/, ''), await readFile(join(root, folder, file), 'utf8'));
  }
  const imports = (text: string): string[] =>
    [...text.matchAll(RELATIVE_PYTHON)]
      .flatMap(([, module, names]) => (module === '' ? names!.split(/[\s,()]+/) : [module!]))
      .filter((name) => texts.has(name));
  return new Map([...texts].map(([module, text]) => [module, imports(text)]));
}

/** Every way along `graph` from a node back to itself. */
function circles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const done = new Set<string>();
  const path: string[] = [];
  const found: string[] = [];
  const visit = (node: string): void => {
    const at = path.indexOf(node);
    if (at >= 0) found.push([...path.slice(at), node].join(' → '));
    if (at >= 0 || done.has(node)) return;
    path.push(node);
    for (const next of graph.get(node) ?? []) visit(next);
    path.pop();
    done.add(node);
  };
  for (const node of graph.keys()) visit(node);
  return found;
}

t.test('no module leads back to itself, types included', async (test) => {
  const graph = await modules();
  test.same(circles(graph), []);
  const python = await pythonModules();
  test.ok([...python.values()].flat().length > 50, "Python's imports were found");
  test.same(circles(python), []);
  test.same(
    circles(
      new Map([
        ['a', ['b']],
        ['b', ['c']],
        ['c', ['a']],
      ]),
    ),
    ['a → b → c → a'],
    'a circle is seen',
  );
});
