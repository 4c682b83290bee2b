/**
 * `tokenizer.json` with `tokenizer_config.json`: ids by @huggingface/tokenizers, and what is ours on top: the bytes of each token
 * (for offsets, and for texts that stream), the chat template, examples.
 */
import { Tokenizer } from '@huggingface/tokenizers';
import { jsonObject } from '../embedded/config.ts';
import type { ChatMessage, Example, ModelTokenizer } from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { parseTemplate, type Template } from './template.ts';

export interface TokenizerFiles {
  /** tokenizer.json */
  readonly tokenizer: string;
  /** tokenizer_config.json, if there is one. */
  readonly config?: string;
  /** chat_template.jinja, if there is one. */
  readonly template?: string;
  /** From config.json. */
  readonly bos: number | undefined;
  readonly eos: readonly number[];
  readonly vocabulary: number;
}

/** With what a generation needs: text that comes token by token. */
export interface StreamingTokenizer extends ModelTokenizer {
  /** UTF-8 of a token; special tokens have none. */
  bytes(id: number): Uint8Array;
}

type Json = Readonly<Record<string, unknown>>;

export function openTokenizer(files: TokenizerFiles): StreamingTokenizer {
  const json = jsonObject(files.tokenizer, 'BAD_TOKENIZER', 'tokenizer.json');
  const config = files.config === undefined ? {} : jsonObject(files.config, 'BAD_TOKENIZER', 'tokenizer_config.json');
  let base: Tokenizer;
  try {
    base = new Tokenizer(json, config);
  } catch (cause) {
    throw new EngineError('BAD_TOKENIZER', 'tokenizer.json', { cause });
  }
  return new TextTokenizer(base, json, config, files);
}

class TextTokenizer implements StreamingTokenizer {
  readonly vocabulary: number;
  readonly bos: number | undefined;
  readonly eos: readonly number[];
  readonly #base: Tokenizer;
  readonly #special: ReadonlySet<number>;
  readonly #bytes: ReadonlyMap<number, Uint8Array>;
  readonly #byteLevel: boolean;
  readonly #template: { readonly source: string | undefined; parsed?: Template };
  readonly #spelt: Json;

  constructor(base: Tokenizer, json: Json, config: Json, files: TokenizerFiles) {
    this.#base = base;
    const kind = kindOf(json);
    this.#byteLevel = kind === 'ByteLevel';
    const added = (Array.isArray(json.added_tokens) ? json.added_tokens : []) as {
      id: number;
      content: string;
      special: boolean;
    }[];
    this.#special = new Set(added.filter(({ special }) => special).map(({ id }) => id));
    const verbatim = new Set(added.map(({ id }) => id));
    const encoder = new TextEncoder();
    const bytes = new Map<number, Uint8Array>();
    for (const [token, id] of base.get_vocab(true)) {
      if (id >= files.vocabulary) {
        throw new EngineError('BAD_TOKENIZER', `token ${id} for a model of ${files.vocabulary}`);
      }
      bytes.set(
        id,
        verbatim.has(id) ? encoder.encode(token) : kind === 'ByteLevel' ? byteLevel(token) : pieceBytes(token),
      );
    }
    this.#bytes = bytes;
    this.vocabulary = files.vocabulary;
    const bosName = nameOf(config.bos_token);
    const eosName = nameOf(config.eos_token);
    this.bos = files.bos ?? (bosName === undefined ? undefined : base.token_to_id(bosName));
    const eos = eosName === undefined ? undefined : base.token_to_id(eosName);
    this.eos = [...new Set([...(eos === undefined ? [] : [eos]), ...files.eos])];
    this.#spelt = {
      bos_token: bosName ?? (this.bos === undefined ? '' : base.id_to_token(this.bos)),
      eos_token: eosName ?? (this.eos[0] === undefined ? '' : base.id_to_token(this.eos[0])),
      ...(nameOf(config.pad_token) === undefined ? {} : { pad_token: nameOf(config.pad_token) }),
      ...(nameOf(config.unk_token) === undefined ? {} : { unk_token: nameOf(config.unk_token) }),
    };
    const source = files.template ?? templateOf(config.chat_template);
    this.#template = { source };
  }

  encode(text: string): number[] {
    return text === '' ? [] : this.#base.encode(text, { add_special_tokens: false }).ids;
  }

  decode(ids: readonly number[], skipSpecial = true): string {
    for (const id of ids) if (!this.#bytes.has(id)) throw new EngineError('BAD_REQUEST', `token ${id} is unknown`);
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    let text = '';
    for (const [i, id] of ids.entries()) {
      if (skipSpecial && this.#special.has(id)) continue;
      const bytes = this.#bytes.get(id)!;
      // SentencePiece puts a space before the first word, which is not of the text.
      text += decoder.decode(!this.#byteLevel && i === 0 && bytes[0] === 32 ? bytes.subarray(1) : bytes, {
        stream: true,
      });
    }
    return text + decoder.decode();
  }

  bytes(id: number): Uint8Array {
    return this.#special.has(id) ? NOTHING : (this.#bytes.get(id) ?? NOTHING);
  }

  offsets(text: string): { ids: number[]; starts: number[]; ends: number[] } {
    const ids = this.encode(text);
    // UTF-16 index of the character at each byte; a lone surrogate is three bytes (U+FFFD).
    const at: number[] = [];
    const ends: number[] = [];
    let index = 0;
    for (const character of text) {
      const code = character.codePointAt(0)!;
      const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
      for (let i = 0; i < size; i++) {
        at.push(index);
        ends.push(index + character.length);
      }
      index += character.length;
    }
    const starts: number[] = [];
    const stops: number[] = [];
    let byte = 0;
    const source = this.#byteLevel ? undefined : new TextEncoder().encode(text);
    for (const id of ids) {
      let length = this.#bytes.get(id)?.length ?? 0;
      // A space that the tokenizer put before the text.
      if (source !== undefined && byte === 0 && this.#bytes.get(id)?.[0] === 32 && source[0] !== 32) length--;
      starts.push(at[byte] ?? text.length);
      byte += length;
      stops.push(length === 0 ? starts.at(-1)! : (ends[byte - 1] ?? text.length));
    }
    return { ids, starts, ends: stops };
  }

  chat(messages: readonly ChatMessage[], answer = true): string {
    const { source } = this.#template;
    if (source === undefined) throw new EngineError('BAD_TEMPLATE', 'the model has no chat template');
    this.#template.parsed ??= parseTemplate(source);
    return this.#template.parsed({ ...this.#spelt, messages, add_generation_prompt: answer });
  }

  /** A model without a template gets the question and the answer on lines of their own. */
  question(prompt: string, response: string): Example {
    const opening =
      this.#template.source === undefined
        ? [...(this.bos === undefined ? [] : [this.bos]), ...this.encode(`${prompt}\n`)]
        : this.encode(this.chat([{ role: 'user', content: prompt }]));
    if (opening.length === 0) throw new EngineError('BAD_EXAMPLE', 'the question has no token');
    return { tokens: [...opening, ...this.encode(response), ...this.eos.slice(0, 1)], from: opening.length };
  }

  plain(text: string): Example {
    const tokens = [...(this.bos === undefined ? [] : [this.bos]), ...this.encode(text), ...this.eos.slice(0, 1)];
    if (tokens.length < 2) throw new EngineError('BAD_EXAMPLE', 'a text of no token');
    return { tokens, from: 1 };
  }
}

const NOTHING = new Uint8Array();

/** How tokens spell bytes: GPT-2's alphabet, or SentencePiece's ▁ and `<0xNN>`. */
function kindOf(json: Json): 'ByteLevel' | 'Metaspace' {
  const parts = (value: unknown): Json[] => {
    const { decoders, pretokenizers, normalizers } = (value ?? {}) as Json;
    const inner = decoders ?? pretokenizers ?? normalizers;
    return Array.isArray(inner) ? inner.flatMap(parts) : value == null ? [] : [value as Json];
  };
  const decoders = parts(json.decoder);
  if (decoders.some(({ type }) => type === 'ByteLevel')) {
    const [normalizer] = parts(json.normalizer);
    // With a normaliser the tokens are not of the text as it stands.
    if (normalizer !== undefined) throw new EngineError('BAD_TOKENIZER', `normaliser ${String(normalizer.type)}`);
    return 'ByteLevel';
  }
  const isMetaspace = decoders.some(
    ({ type, pattern }) =>
      type === 'Metaspace' || (type === 'Replace' && (pattern as Json | undefined)?.String === '▁'),
  );
  if (isMetaspace) return 'Metaspace';
  throw new EngineError('BAD_TOKENIZER', `decoder ${String(decoders[0]?.type)}: neither byte-level nor SentencePiece`);
}

/** GPT-2's alphabet: printable Latin-1 for itself, other bytes from U+0100 on. */
const BYTE_OF: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let other = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    map.set(String.fromCodePoint(printable ? byte : other++), byte);
  }
  return map;
})();

function byteLevel(token: string): Uint8Array {
  return Uint8Array.from(token, (character) => {
    const byte = BYTE_OF.get(character);
    if (byte === undefined) throw new EngineError('BAD_TOKENIZER', `token ${JSON.stringify(token)} is not byte-level`);
    return byte;
  });
}

function pieceBytes(token: string): Uint8Array {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
  if (byte !== null) return Uint8Array.of(Number.parseInt(byte[1]!, 16));
  return new TextEncoder().encode(token.replaceAll('▁', ' '));
}

function nameOf(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  const content = (token as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : undefined;
}

/** One template, or several with names, of which `default` is the one for chats. */
function templateOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return undefined;
  const found = value.find((entry) => entry?.name === 'default')?.template;
  return typeof found === 'string' ? found : undefined;
}
