/**
 * No list is spread into the arguments of a call: how many arguments fit depends on the stack (some 120,000), so a list
 * that somebody else can fill would end the process of one node and not of another.
 */
import { glob, readFile } from 'node:fs/promises';
import { transform } from 'esbuild';
import t from 'tap';

const ROOT = new URL('../', import.meta.url);
const FOLDERS = ['runtime', 'node', 'consensus', 'p2p', 'rpc', 'gpu-worker'];

/** Spreads whose length stands in the source text, and what they are. */
const SHORT: readonly (readonly [RegExp, string])[] = [
  [/^node\/crypto\/(ed25519|scalars)\.ts: Uint8Array\.of\(/, 'bytes of a constant'],
  [/^node\/wasm-builder\/guest\/host\.ts: Uint8Array\.of\(1, \.\.\.littleEndian\(/, 'four bytes of a number'],
  [/^node\/cli\/commands\/chain-spec\.ts: .*\.option\(\.\.\.output\)/, 'a flag and its help'],
  [
    /^rpc\/client\/\w+(-\w+)?\.ts: this\.(#?rpc\.)?(ask|call)\(/,
    'parameters of a JSON-RPC method, written out by its caller',
  ],
  [/^gpu-worker\/session\/registration\.ts: .*\.rpc\.call\(/, 'parameters of a JSON-RPC method'],
  [/^gpu-worker\/wasm\//, 'instructions of a kernel, which these files write'],
  [/^gpu-worker\/engines\/embedded\/layers\.ts: model\.kernels\.gemm\(/, 'three sizes'],
];

/** JavaScript without types and comments, and with the insides of strings, templates and regular expressions blanked. */
async function bare(source: string): Promise<string> {
  const { code } = await transform(source, { loader: 'ts', legalComments: 'none' });
  return code.replace(
    /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?<=[=(,:!&|?[;{]\s*)\/(?![*/])(?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/g,
    (found) => `"${'_'.repeat(Math.max(0, found.length - 2))}"`,
  );
}

/** The calls that a list is spread into, as their text up to the end of the line. */
export function spreadCalls(code: string): string[] {
  const found: string[] = [];
  /** Names that are rest parameters: they hold as many values as some caller wrote out. */
  const rest = new Set([...code.matchAll(/[(,]\s*\.\.\.(\w+)\s*\)\s*(?:=>|\{)/g)].map(([, name]) => name));
  const open: number[] = [];
  for (let at = 0; at < code.length; at++) {
    const char = code[at]!;
    if ('([{'.includes(char)) open.push(at);
    else if (')]}'.includes(char)) open.pop();
    else if (code.startsWith('...', at)) {
      const start = open.at(-1);
      at += 2;
      if (start === undefined || code[start] !== '(') continue;
      if (!/[\w$)\]]\s*$/.test(code.slice(0, start))) continue;
      const name = /^\w+/.exec(code.slice(at + 1))?.[0];
      const end = /^\w+\s*\)\s*(?:=>|\{)/.test(code.slice(at + 1));
      if (end || (name !== undefined && rest.has(name))) continue;
      const line = code.lastIndexOf('\n', start) + 1;
      const callee = /[\w$.#\])]+$/.exec(code.slice(line, start))?.[0] ?? '';
      found.push(`${callee}${code.slice(start, code.indexOf('\n', at))}`);
    }
  }
  return found;
}

t.test('the scanner sees what it is there for', async (test) => {
  const calls = async (source: string) => spreadCalls(await bare(source));
  test.same(await calls('f(...list);'), ['f(...list);']);
  test.same(await calls('a.b.push(1, ...list.map((x) => g(x)));'), ['a.b.push(1, ...list.map((x) => g(x)));']);
  test.same(await calls('new Set([...list]); const a = [...b]; const c = { ...d }; f({ ...e }, [...g]);'), []);
  test.same(await calls('function f(...all: number[]) { return g(...all); }'), []);
  test.same(await calls('const f = (a: number, ...all: number[]) => a + all.length;'), []);
  // biome-ignore lint/suspicious/noTemplateCurlyInString: the text of a program
  test.same(await calls('f("...", /[(]/, `${g(...h)}`);').then((found) => found.length), 1);
});

t.test('nothing spreads a list into a call', async (test) => {
  const found: string[] = [];
  let files = 0;
  for (const folder of FOLDERS) {
    for await (const path of glob(`${folder}/**/*.ts`, { cwd: ROOT })) {
      if (path.endsWith('.d.ts') || path.includes('node_modules')) continue;
      files++;
      const code = await bare(await readFile(new URL(path, ROOT), 'utf8'));
      for (const call of spreadCalls(code)) found.push(`${path.replaceAll('\\', '/')}: ${call}`);
    }
  }
  test.ok(files > 200, 'the sources were found');
  test.same(
    found.filter((each) => !SHORT.some(([allowed]) => allowed.test(each))),
    [],
  );
});
