/** Questions to a gateway as an application asks them, and whether text and receipt belong together. */
import { signedInferenceReceipt, textDigest } from '../../runtime/primitives/attribution/receipts.ts';
import { fromHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import { hashing } from '../main-job/support.ts';

interface Attribution {
  readonly receipt: string;
  readonly worker: string;
  readonly fee: string;
}
export interface Answer {
  readonly status: number;
  readonly text: string;
  readonly attribution?: Attribution;
  readonly code?: string;
}

/** A gateway reads nothing else, so that no web page can send it a question unasked. */
export const JSON_TYPE = { 'content-type': 'application/json' };

export const bodyOf = (prompt: string, more: object = {}) =>
  JSON.stringify({ model: 'things', prompt, max_tokens: 24, temperature: 0.8, ...more });

export async function ask(gateway: string, body: string): Promise<Answer> {
  const response = await fetch(`${gateway}/completions`, { method: 'POST', headers: JSON_TYPE, body });
  const { choices, attribution, error } = (await response.json()) as {
    choices?: { text: string }[];
    attribution?: Attribution;
    error?: { code: string };
  };
  return {
    ...{ status: response.status, text: choices?.[0]?.text ?? '' },
    ...(attribution && { attribution }),
    ...(error && { code: error.code }),
  };
}

/** Streamed: `first` runs when the first words are there. */
export async function stream(gateway: string, body: string, first: () => Promise<unknown>): Promise<Answer> {
  const response = await fetch(`${gateway}/completions`, { method: 'POST', headers: JSON_TYPE, body });
  let [text, rest, begun] = ['', '', false];
  let attribution: Attribution | undefined;
  let code: string | undefined;
  let happened: Promise<unknown> = Promise.resolve();
  for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
    rest += part;
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 1);
      if (!line.startsWith('data: {')) continue;
      const event = JSON.parse(line.slice(6)) as {
        choices?: { text: string }[];
        attribution?: Attribution;
        error?: { code: string };
      };
      text += event.choices?.[0]?.text ?? '';
      attribution = event.attribution ?? attribution;
      code = event.error?.code ?? code;
      if (text !== '' && !begun) {
        begun = true;
        happened = first();
      }
    }
  }
  await happened;
  return { status: response.status, text, ...(attribution && { attribution }), ...(code !== undefined && { code }) };
}

export const receiptOf = ({ attribution }: Answer) =>
  decode(signedInferenceReceipt, fromHex(attribution!.receipt)).payload;
/** Whether the receipt is about the text that was heard. */
export const saysIt = (answer: Answer): boolean =>
  Buffer.from(textDigest(hashing, utf8(answer.text))).equals(receiptOf(answer).outputHash);
