import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import type { ChatMessage } from '../../../gpu-worker/engines/engine.ts';
import { parseTemplate } from '../../../gpu-worker/engines/text/template.ts';
import { TextStream } from '../../../gpu-worker/engines/text/text-stream.ts';
import { openTokenizer, type StreamingTokenizer } from '../../../gpu-worker/engines/text/tokenizer.ts';

const VECTORS = fileURLToPath(new URL('../../vectors/embedded/', import.meta.url));
const read = (name: string): string => readFileSync(`${VECTORS}${name}`, 'utf8');
const expected: {
  tokenizer: { text: string; ids: number[]; offsets: [number, number][]; decoded: string }[];
  chats: { messages: ChatMessage[]; answer: boolean; text: string }[];
} = JSON.parse(read('vectors.json'));
const tokenizer = (): StreamingTokenizer =>
  openTokenizer({
    tokenizer: read('deep/tokenizer.json'),
    config: read('deep/tokenizer_config.json'),
    ...{ bos: 0, eos: [1], vocabulary: 301 },
  });

test('ids, offsets and texts are those of Hugging Face’s tokenizer', async (t) => {
  const own = tokenizer();
  for (const { text, ids, offsets, decoded } of expected.tokenizer) {
    t.same(own.encode(text), ids, text);
    t.equal(own.decode(ids), decoded);
    // Theirs count code points, ours UTF-16 units.
    const units = [0];
    for (const character of text) units.push(units.at(-1)! + character.length);
    const got = own.offsets(text);
    t.same(got.ids, ids);
    t.same(
      got.starts,
      offsets.map(([start]) => units[start]!),
      `${text}: starts`,
    );
    t.same(
      got.ends,
      offsets.map(([, end]) => units[end]!),
      `${text}: ends`,
    );
  }
});

test('chat templates are rendered as transformers does', async (t) => {
  const own = tokenizer();
  for (const { messages, answer, text } of expected.chats) t.equal(own.chat(messages, answer), text);
  const { tokens, from } = own.question('Hello?', 'World.');
  t.equal(own.decode(tokens.slice(0, from), false), own.chat([{ role: 'user', content: 'Hello?' }]));
  t.equal(own.decode(tokens.slice(from), false), 'World.<|end|>');
  t.same(own.plain('ab').tokens, [0, ...own.encode('ab'), 1]);
  const chatMl = parseTemplate(
    "{%- set ns = namespace(n=0) -%}\n{% for m in messages if m.role != 'tool' %}\n  {% set ns.n = ns.n + 1 %}\n{{ '<|im_start|>' ~ m['role'] + '\\n' + m.content.strip() }}<{{ ns.n }}/{{ loop.length }}>\n{% endfor %}{# no #}{{ 'x' if messages | length > 1 and not add else \"y\" }}",
  );
  const messages = [
    { role: 'user', content: ' a ' },
    { role: 'tool', content: 'no' },
    { role: 'assistant', content: 'b' },
  ];
  t.equal(chatMl({ messages, add: false }), '<|im_start|>user\na<1/2>\n<|im_start|>assistant\nb<2/2>\nx');
  for (const source of [
    '{% if %}',
    '{{ a',
    '{% for x in y %}',
    '{{ f(x) }}',
    '{% macro x() %}',
    '{{ a | odd }}',
    '{% endif %}',
  ]) {
    t.throws(() => parseTemplate(source)({ a: 1, y: [] }), { code: 'BAD_TEMPLATE' }, source);
  }
  t.throws(() => parseTemplate("{{ raise_exception('roles') }}")({}), { code: 'BAD_TEMPLATE' });
});

test('a stream never cuts a character, and holds back what may begin a stop', async (t) => {
  const own = tokenizer();
  const text = 'naïve 😀 日本語 – end';
  const ids = own.encode(text);
  t.ok(ids.length > text.length, 'characters of several tokens');
  const stream = new TextStream(own, []);
  let all = '';
  for (const [i, id] of ids.entries()) {
    const { delta } = stream.push(id, i === ids.length - 1);
    t.notMatch(delta, /\ufffd|[\ud800-\udbff]$/u);
    all += delta;
  }
  t.equal(all, text);
  for (const stop of ['日本', '😀', 'e 😀 日', 'end']) {
    const held = new TextStream(own, ['zzz', stop]);
    let out = '';
    let stopped = false;
    for (const [i, id] of ids.entries()) {
      const pushed = held.push(id, i === ids.length - 1);
      out += pushed.delta;
      t.ok(text.slice(0, text.indexOf(stop)).startsWith(out), 'nothing of the stop goes out');
      stopped ||= pushed.stopped;
      if (stopped) break;
    }
    t.ok(stopped);
    t.equal(out, text.slice(0, text.indexOf(stop)));
  }
  const cut = new TextStream(own, ['end.']);
  const [first] = own.encode('日');
  t.equal(cut.push(first!, false).delta, '', 'a first byte waits');
  t.equal(cut.push(first!, true).delta, '\ufffd\ufffd', 'and is what decode says at the end');
});
