/**
 * Chat templates: the subset of Jinja that they use. Texts, `{{ … }}`, `{% for / if / elif / else / set %}`, comments, whitespace
 * control; expressions with members, indices, slices, comparisons, `and or not in is`, `+ ~ -`, a few filters and methods. As
 * transformers renders them: a newline behind a block is dropped, and so is the indentation before one. What is not
 * understood is refused (`BAD_TEMPLATE`), never skipped.
 */
import { EngineError } from '../engine-error.ts';

type Scope = Map<string, unknown>;
type Expression = (scope: Scope) => unknown;
type Node = (scope: Scope, out: string[]) => void;

export type Template = (values: Readonly<Record<string, unknown>>) => string;

const bad = (message: string): EngineError => new EngineError('BAD_TEMPLATE', `chat template: ${message}`);

export function parseTemplate(source: string): Template {
  const parser = new Parser(pieces(source));
  const nodes = parser.nodes();
  if (parser.peek() !== undefined) throw bad(`{% ${parser.peek()!.text} %} without its beginning`);
  return (values) => {
    const out: string[] = [];
    const scope: Scope = new Map(Object.entries(values));
    for (const node of nodes) node(scope, out);
    return out.join('');
  };
}

// ---- pieces ----------------------------------------------------------------------------------------------------------

interface Piece {
  readonly kind: 'text' | 'output' | 'block';
  readonly text: string;
}

function pieces(source: string): Piece[] {
  const out: Piece[] = [];
  const tag = /\{([{%#])([-+]?)/g;
  let at = 0;
  let trimStart: 'all' | 'newline' | 'none' = 'none';
  for (;;) {
    tag.lastIndex = at;
    const found = tag.exec(source);
    let text = source.slice(at, found?.index);
    if (trimStart === 'all') text = text.trimStart();
    else if (trimStart === 'newline') text = text.replace(/^\n/, '');
    if (found !== null && found[2] === '-') text = text.trimEnd();
    else if (found !== null && found[1] !== '{' && found[2] !== '+') {
      // Indentation of a block that is alone on its line.
      const lineStart = source.slice(0, found.index).match(/(^|\n)[ \t]*$/) !== null;
      if (lineStart) text = text.replace(/[ \t]+$/, '');
    }
    if (text !== '') out.push({ kind: 'text', text });
    if (found === null) return out;
    const kind = found[1] as '{' | '%' | '#';
    const begin = found.index + found[0].length;
    const end = endOfTag(source, begin, kind);
    const minus = source[end - 1] === '-' && end - 1 >= begin;
    const body = source.slice(begin, minus ? end - 1 : end).trim();
    if (kind === '{') out.push({ kind: 'output', text: body });
    else if (kind === '%') out.push({ kind: 'block', text: body });
    trimStart = minus ? 'all' : kind === '{' ? 'none' : 'newline';
    at = end + 2;
  }
}

/** Index of the `}}`, `%}` or `#}`, which may stand in strings. */
function endOfTag(source: string, from: number, kind: '{' | '%' | '#'): number {
  const close = kind === '{' ? '}}' : `${kind}}`;
  let quote = '';
  let depth = 0;
  for (let i = from; i < source.length; i++) {
    const c = source[i]!;
    if (kind !== '#') {
      if (quote !== '') {
        if (c === '\\') i++;
        else if (c === quote) quote = '';
        continue;
      }
      if (c === '"' || c === "'") {
        quote = c;
        continue;
      }
      if (c === '{') depth++;
      if (c === '}' && depth > 0) {
        depth--;
        continue;
      }
    }
    if (source.startsWith(close, i)) return i;
  }
  throw bad(`no ${close}`);
}

// ---- blocks ----------------------------------------------------------------------------------------------------------

class Parser {
  readonly #pieces: readonly Piece[];
  #at = 0;

  constructor(all: readonly Piece[]) {
    this.#pieces = all;
  }

  peek(): Piece | undefined {
    return this.#pieces[this.#at];
  }

  nodes(): Node[] {
    const out: Node[] = [];
    for (;;) {
      const piece = this.peek();
      if (piece === undefined) return out;
      if (piece.kind === 'block' && /^(endfor|endif|elif|else)\b/.test(piece.text)) return out;
      this.#at++;
      if (piece.kind === 'text') out.push((_, to) => void to.push(piece.text));
      else if (piece.kind === 'output') {
        const value = parseExpression(piece.text);
        out.push((scope, to) => void to.push(toText(value(scope))));
      } else out.push(this.#block(piece.text));
    }
  }

  #block(text: string): Node {
    const [word] = text.split(/\s/, 1);
    if (word === 'if') return this.#if(text.slice(2));
    if (word === 'for') return this.#for(text);
    if (word === 'set') return this.#set(text);
    if (word === 'generation' || word === 'endgeneration') return () => {};
    throw bad(`{% ${word} %}`);
  }

  #take(pattern: RegExp): string {
    const piece = this.peek();
    if (piece === undefined || !pattern.test(piece.text)) throw bad(`${pattern.source} expected`);
    this.#at++;
    return piece.text;
  }

  #if(condition: string): Node {
    const test = parseExpression(condition);
    const then = this.nodes();
    const next = this.peek()?.text ?? '';
    let otherwise: Node[] = [];
    if (next.startsWith('elif')) {
      this.#at++;
      otherwise = [this.#if(next.slice(4))];
    } else {
      if (next === 'else') {
        this.#at++;
        otherwise = this.nodes();
      }
      this.#take(/^endif$/);
    }
    return (scope, out) => {
      for (const node of truth(test(scope)) ? then : otherwise) node(scope, out);
    };
  }

  #for(text: string): Node {
    const found = /^for\s+(\w+)\s+in\s+(.+?)(?:\s+if\s+(.+))?$/s.exec(text);
    if (found === null) throw bad(`{% ${text} %}`);
    const name = found[1]!;
    const list = parseExpression(found[2]!);
    const filter = found[3] === undefined ? undefined : parseExpression(found[3]);
    const body = this.nodes();
    let otherwise: Node[] = [];
    if (this.peek()?.text === 'else') {
      this.#at++;
      otherwise = this.nodes();
    }
    this.#take(/^endfor$/);
    return (scope, out) => {
      const value = list(scope);
      if (!Array.isArray(value)) throw bad(`${found[2]} is not a list`);
      const items = value.filter((item) => filter === undefined || truth(filter(new Map(scope).set(name, item))));
      if (items.length === 0) for (const node of otherwise) node(scope, out);
      for (const [index, item] of items.entries()) {
        const loop = {
          ...{ index: index + 1, index0: index, first: index === 0, last: index === items.length - 1 },
          ...{ length: items.length, previtem: items[index - 1], nextitem: items[index + 1] },
        };
        // What is set in a loop stays in it, as in Jinja.
        const inner = new Map(scope).set(name, item).set('loop', loop);
        for (const node of body) node(inner, out);
      }
    };
  }

  #set(text: string): Node {
    const found = /^set\s+(\w+)(?:\.(\w+))?\s*=\s*(.+)$/s.exec(text);
    if (found === null) throw bad(`{% ${text} %}`);
    const [, name, member] = found;
    const value = parseExpression(found[3]!);
    if (member === undefined) return (scope) => void scope.set(name!, value(scope));
    return (scope) => {
      const target = scope.get(name!);
      if (!(target instanceof Namespace)) throw bad(`${name} is no namespace`);
      target.values.set(member, value(scope));
    };
  }
}

class Namespace {
  readonly values: Map<string, unknown>;
  constructor(values: Map<string, unknown>) {
    this.values = values;
  }
}

// ---- expressions -----------------------------------------------------------------------------------------------------

const TOKEN =
  /\s*(?:("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(\d+(?:\.\d+)?)|([A-Za-z_]\w*)|(==|!=|<=|>=|[-+~*/%<>()[\]{}.,:|=]))/gy;

function parseExpression(text: string): Expression {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  const trimmed = text.trimEnd();
  while (TOKEN.lastIndex < trimmed.length) {
    const from = TOKEN.lastIndex;
    const found = TOKEN.exec(trimmed);
    if (found === null) throw bad(`cannot read "${trimmed.slice(from, from + 20)}"`);
    tokens.push(found[0].trim());
  }
  const parser = new ExpressionParser(tokens);
  const value = parser.conditional();
  if (parser.peek() !== undefined) throw bad(`"${parser.peek()}" in "${trimmed}"`);
  return value;
}

const COMPARE: Readonly<Record<string, (x: unknown, y: unknown) => boolean>> = {
  '==': (x, y) => x === y,
  '!=': (x, y) => x !== y,
  '<': (x, y) => (x as number) < (y as number),
  '>': (x, y) => (x as number) > (y as number),
  '<=': (x, y) => (x as number) <= (y as number),
  '>=': (x, y) => (x as number) >= (y as number),
  in: (x, y) => contains(y, x),
};

class ExpressionParser {
  readonly #tokens: readonly string[];
  #at = 0;

  constructor(tokens: readonly string[]) {
    this.#tokens = tokens;
  }

  peek(): string | undefined {
    return this.#tokens[this.#at];
  }

  #skip(token: string): boolean {
    if (this.peek() !== token) return false;
    this.#at++;
    return true;
  }

  #expect(token: string): void {
    if (!this.#skip(token)) throw bad(`"${token}" expected, not "${this.peek() ?? 'the end'}"`);
  }

  conditional(): Expression {
    const yes = this.#or();
    if (!this.#skip('if')) return yes;
    const test = this.#or();
    const no = this.#skip('else') ? this.conditional() : (): undefined => undefined;
    return (scope) => (truth(test(scope)) ? yes(scope) : no(scope));
  }

  #or(): Expression {
    let left = this.#and();
    while (this.#skip('or')) {
      const [x, y] = [left, this.#and()];
      left = (scope) => {
        const value = x(scope);
        return truth(value) ? value : y(scope);
      };
    }
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.#skip('and')) {
      const [x, y] = [left, this.#not()];
      left = (scope) => {
        const value = x(scope);
        return truth(value) ? y(scope) : value;
      };
    }
    return left;
  }

  #not(): Expression {
    if (!this.#skip('not')) return this.#comparison();
    const value = this.#not();
    return (scope) => !truth(value(scope));
  }

  #comparison(): Expression {
    let left = this.#sum();
    for (;;) {
      const token = this.peek();
      const x = left;
      if (token === 'is') {
        this.#at++;
        left = this.#test(x);
      } else if (token === 'not' && this.#tokens[this.#at + 1] === 'in') {
        this.#at += 2;
        const y = this.#sum();
        left = (scope) => !contains(y(scope), x(scope));
      } else if (token !== undefined && Object.hasOwn(COMPARE, token)) {
        this.#at++;
        const y = this.#sum();
        const compare = COMPARE[token]!;
        left = (scope) => compare(x(scope), y(scope));
      } else return left;
    }
  }

  #test(value: Expression): Expression {
    const negative = this.#skip('not');
    const name = this.#tokens[this.#at++] ?? '';
    const test = TESTS[name];
    if (test === undefined || !Object.hasOwn(TESTS, name)) throw bad(`test "${name}"`);
    return (scope) => test(value(scope)) !== negative;
  }

  #sum(): Expression {
    let left = this.#unary();
    for (;;) {
      const x = left;
      if (this.#skip('+')) {
        const y = this.#unary();
        left = (scope) => plus(x(scope), y(scope));
      } else if (this.#skip('~')) {
        const y = this.#unary();
        left = (scope) => toText(x(scope)) + toText(y(scope));
      } else if (this.#skip('-')) {
        const y = this.#unary();
        left = (scope) => numeric(x(scope)) - numeric(y(scope));
      } else if (this.#skip('%')) {
        const y = this.#unary();
        left = (scope) => {
          const divisor = numeric(y(scope));
          return ((numeric(x(scope)) % divisor) + divisor) % divisor;
        };
      } else return left;
    }
  }

  #unary(): Expression {
    if (!this.#skip('-')) return this.#postfix();
    const value = this.#unary();
    return (scope) => -numeric(value(scope));
  }

  #postfix(): Expression {
    let value = this.#primary();
    for (;;) {
      const x = value;
      if (this.#skip('.')) {
        const name = this.#tokens[this.#at++] ?? '';
        if (this.#skip('(')) {
          const values = this.#arguments();
          value = (scope) => method(x(scope), name, values(scope));
        } else value = (scope) => member(x(scope), name);
      } else if (this.#skip('[')) value = this.#index(x);
      else if (this.#skip('|')) {
        const name = this.#tokens[this.#at++] ?? '';
        const values = this.#skip('(') ? this.#arguments() : (): unknown[] => [];
        value = (scope) => filtered(x(scope), name, values(scope));
      } else return value;
    }
  }

  #index(x: Expression): Expression {
    const from = this.peek() === ':' ? undefined : this.conditional();
    if (!this.#skip(':')) {
      this.#expect(']');
      return (scope) => member(x(scope), from!(scope));
    }
    const to = this.peek() === ']' ? undefined : this.conditional();
    this.#expect(']');
    return (scope) => {
      const value = x(scope);
      if (typeof value !== 'string' && !Array.isArray(value)) throw bad('a slice of neither text nor list');
      const bound = (of: Expression | undefined): number | undefined =>
        of === undefined ? undefined : numeric(of(scope));
      return value.slice(bound(from), bound(to));
    };
  }

  #arguments(): (scope: Scope) => unknown[] {
    const values: { name?: string; value: Expression }[] = [];
    while (!this.#skip(')')) {
      if (values.length > 0) this.#expect(',');
      const named = this.#tokens[this.#at + 1] === '=';
      const name = named ? this.#tokens[this.#at]! : undefined;
      if (named) this.#at += 2;
      values.push({ ...(name === undefined ? {} : { name }), value: this.conditional() });
    }
    return (scope) =>
      values.map(({ name, value }) => (name === undefined ? value(scope) : { name, value: value(scope) }));
  }

  #primary(): Expression {
    const token = this.#tokens[this.#at++];
    if (token === undefined) throw bad('an expression ends early');
    if (token === '(') {
      const value = this.conditional();
      this.#expect(')');
      return value;
    }
    if (token === '[') {
      const values: Expression[] = [];
      while (!this.#skip(']')) {
        if (values.length > 0) this.#expect(',');
        values.push(this.conditional());
      }
      return (scope) => values.map((value) => value(scope));
    }
    if (/^["']/.test(token)) {
      const text = unescaped(token.slice(1, -1));
      return () => text;
    }
    if (/^\d/.test(token)) return () => Number(token);
    if (Object.hasOwn(CONSTANTS, token)) return () => CONSTANTS[token];
    if (!/^\w+$/.test(token)) throw bad(`"${token}"`);
    if (this.#skip('(')) {
      const values = this.#arguments();
      return (scope) => called(token, values(scope));
    }
    return (scope) => scope.get(token);
  }
}

const CONSTANTS: Readonly<Record<string, unknown>> = {
  ...{ true: true, True: true, false: false, False: false, none: null, None: null },
};

const TESTS: Readonly<Record<string, (value: unknown) => boolean>> = {
  defined: (value) => value !== undefined,
  undefined: (value) => value === undefined,
  none: (value) => value === null,
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number',
  iterable: (value) => typeof value === 'string' || Array.isArray(value),
  sequence: (value) => typeof value === 'string' || Array.isArray(value),
  mapping: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  true: (value) => value === true,
  false: (value) => value === false,
  odd: (value) => Math.abs(numeric(value) % 2) === 1,
  even: (value) => numeric(value) % 2 === 0,
};

function called(name: string, values: readonly unknown[]): unknown {
  if (name === 'raise_exception') throw bad(toText(values[0]));
  if (name === 'namespace') {
    return new Namespace(
      new Map((values as { name: string; value: unknown }[]).map((entry) => [entry.name, entry.value])),
    );
  }
  if (name === 'range' && values.length === 1) return Array.from({ length: numeric(values[0]) }, (_, i) => i);
  throw bad(`function "${name}"`);
}

function method(value: unknown, name: string, values: readonly unknown[]): unknown {
  if (typeof value === 'string') {
    const text = values[0] as string;
    const blank = values.length === 0;
    if (name === 'strip' && blank) return value.trim();
    if (name === 'lstrip' && blank) return value.trimStart();
    if (name === 'rstrip' && blank) return value.trimEnd();
    if (name === 'upper') return value.toUpperCase();
    if (name === 'lower') return value.toLowerCase();
    if (name === 'startswith') return value.startsWith(text);
    if (name === 'endswith') return value.endsWith(text);
    if (name === 'split' && !blank) return value.split(text);
    if (name === 'replace') return value.replaceAll(text, values[1] as string);
  }
  if (name === 'get') return member(value, values[0]) ?? values[1];
  throw bad(`method "${name}"`);
}

function filtered(value: unknown, name: string, values: readonly unknown[]): unknown {
  if (name === 'trim') return toText(value).trim();
  if (name === 'upper') return toText(value).toUpperCase();
  if (name === 'lower') return toText(value).toLowerCase();
  if (name === 'length' || name === 'count') return (value as { length: number }).length;
  if (name === 'string') return toText(value);
  if (name === 'first') return (value as unknown[])[0];
  if (name === 'last') return (value as unknown[]).at(-1);
  if (name === 'default') return value === undefined ? values[0] : value;
  if (name === 'join') return (value as unknown[]).map(toText).join(values.length === 0 ? '' : toText(values[0]));
  if (name === 'tojson' && values.length === 0) return JSON.stringify(value);
  throw bad(`filter "${name}"`);
}

function member(value: unknown, key: unknown): unknown {
  if (value instanceof Namespace) return value.values.get(String(key));
  if (typeof key === 'number' && (typeof value === 'string' || Array.isArray(value))) return value.at(key);
  if (value === undefined || value === null) throw bad(`"${String(key)}" of nothing`);
  if (typeof value === 'object' && Object.hasOwn(value, String(key)))
    return (value as Record<string, unknown>)[String(key)];
  return undefined;
}

function contains(whole: unknown, part: unknown): boolean {
  if (typeof whole === 'string') return whole.includes(toText(part));
  if (Array.isArray(whole)) return whole.includes(part);
  return typeof whole === 'object' && whole !== null && Object.hasOwn(whole, String(part));
}

function plus(x: unknown, y: unknown): unknown {
  if (typeof x === 'number' && typeof y === 'number') return x + y;
  if (typeof x === 'string' && typeof y === 'string') return x + y;
  if (Array.isArray(x) && Array.isArray(y)) return [...x, ...y];
  throw bad('+ of a text and something else');
}

function numeric(value: unknown): number {
  if (typeof value !== 'number') throw bad(`${toText(value)} is not a number`);
  return value;
}

const truth = (value: unknown): boolean =>
  Array.isArray(value)
    ? value.length > 0
    : value !== undefined && value !== null && value !== '' && value !== false && value !== 0;

function toText(value: unknown): string {
  if (value === undefined) return '';
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r' };
const unescaped = (text: string): string => text.replace(/\\(.)/gs, (_, c: string) => ESCAPES[c] ?? c);
