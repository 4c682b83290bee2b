/** What passes between the verifier and its threads: one buffer there, one back, both handed over and not copied. */
import type { Answer, Question, Scheme } from './signatures.ts';

const SCHEMES: readonly Scheme[] = ['Sr25519', 'Ed25519', 'Ecdsa'];
const HEADER = 7;
const RECOVERED_KEY = 33;

/** Per question: scheme u8, signature length u8, key length u8, message length u32, then the three. */
export function packQuestions(questions: readonly Question[]): Uint8Array<ArrayBuffer> {
  let size = 0;
  for (const { signature, key, message } of questions) {
    size += HEADER + signature.length + key.length + message.length;
  }
  const out = new Uint8Array(new ArrayBuffer(size));
  const view = new DataView(out.buffer);
  let at = 0;
  for (const { scheme, signature, key, message } of questions) {
    out[at] = SCHEMES.indexOf(scheme);
    out[at + 1] = signature.length;
    out[at + 2] = key.length;
    view.setUint32(at + 3, message.length, true);
    at += HEADER;
    for (const part of [signature, key, message]) {
      out.set(part, at);
      at += part.length;
    }
  }
  return out;
}

export function unpackQuestions(bytes: Uint8Array): Question[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const questions: Question[] = [];
  let at = 0;
  const take = (length: number): Uint8Array => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const header = at;
    at += HEADER;
    questions.push({
      scheme: SCHEMES[bytes[header]!]!,
      signature: take(bytes[header + 1]!),
      key: take(bytes[header + 2]!),
      message: take(view.getUint32(header + 3, true)),
    });
  }
  return questions;
}

/** Per answer: 0 for no, 1 for yes, 2 and the key for a recovered key. */
export function packAnswers(answers: readonly Answer[]): Uint8Array<ArrayBuffer> {
  const keys = answers.filter((answer) => answer instanceof Uint8Array).length;
  const out = new Uint8Array(new ArrayBuffer(answers.length + keys * RECOVERED_KEY));
  let at = 0;
  for (const answer of answers) {
    if (answer instanceof Uint8Array) {
      out[at++] = 2;
      out.set(answer, at);
      at += RECOVERED_KEY;
    } else {
      out[at++] = answer === true ? 1 : 0;
    }
  }
  return out;
}

/** Answers to the questions of a batch, in their order. */
export function unpackAnswers(bytes: Uint8Array, questions: readonly Question[]): Answer[] {
  let at = 0;
  return questions.map(({ scheme }) => {
    const kind = bytes[at++];
    if (kind === 2) {
      at += RECOVERED_KEY;
      return bytes.slice(at - RECOVERED_KEY, at);
    }
    return scheme === 'Ecdsa' ? undefined : kind === 1;
  });
}
