/** A thread of the verifier: answers batches of questions, one after the other. */
import { parentPort } from 'node:worker_threads';
import { ask, createSignatures } from './signatures.ts';
import { packAnswers, unpackQuestions } from './verifier-messages.ts';

const port = parentPort;
if (port === null) throw new Error('verifier-thread.ts runs as a worker thread only');
const signatures = await createSignatures();

port.on('message', (batch: Uint8Array) => {
  const answers = packAnswers(unpackQuestions(batch).map((question) => ask(signatures, question)));
  port.postMessage(answers, [answers.buffer]);
});
