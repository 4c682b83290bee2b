/**
 * Every way in which people and machines fail the ledger, in one place: what it is called, who pays for it, and which test
 * makes it happen. This test holds the list to the tests: each code stands in its file.
 */
import { readFile } from 'node:fs/promises';
import t from 'tap';

interface Failure {
  readonly what: string;
  readonly codes: readonly string[];
  /** What it costs whom. */
  readonly costs: string;
  /** Under `test/`. */
  readonly test: string;
}

const LEDGER = 'runtime/ledger/ledger.test.ts';
const DATANETS = 'runtime/ledger/datanets.test.ts';
const AUDITS = 'runtime/ledger/audits.test.ts';
const ROGUE = 'node/attribution-rogue.test.ts';
const AGAIN = 'gpu-worker/again.test.ts';
const BLOBS = 'node/blobs/blobs.test.ts';

const FAILURES: readonly Failure[] = [
  // Records.
  { what: 'a blob of another hash', codes: ['WRONG_HASH'], costs: 'the upload; nothing is kept', test: BLOBS },
  { what: 'a blob beyond its size', codes: ['TOO_LARGE'], costs: 'the upload; nothing is kept', test: BLOBS },
  { what: 'a blob that ends early', codes: ['TRUNCATED'], costs: 'the upload; nothing is kept', test: BLOBS },
  { what: 'a blob that nobody committed to', codes: ['NOT_EXPECTED'], costs: 'the request', test: BLOBS },
  {
    what: 'JSONL that is none, with its line',
    codes: ['RECORD_NOT_JSON', 'RECORD_NOT_OBJECT', 'RECORD_NOT_UTF8', 'RECORD_TOO_DEEP', 'RECORD_TOO_LONG'],
    costs: 'nothing yet: it is not sent',
    test: 'rpc/datanets.test.ts',
  },
  { what: 'a record twice in a batch', codes: ['RECORD_REPEATED'], costs: 'nothing yet', test: 'rpc/datanets.test.ts' },
  { what: 'a batch twice', codes: ['Datanets.AlreadyCommitted'], costs: 'the transaction’s fee', test: DATANETS },
  {
    what: 'a malformed or doubled record on the ledger',
    codes: ['Malformed', 'Duplicate', 'Datanets.AlreadyDecided'],
    costs: 'the batch’s stake, half of it to the finder',
    test: DATANETS,
  },
  {
    what: 'a dispute that shows nothing',
    codes: ['Datanets.NotProven'],
    costs: 'the transaction’s fee',
    test: DATANETS,
  },
  // Training.
  {
    what: 'a worker that dies with a lease',
    codes: ['letting a lease run out costs'],
    costs: '1 OPEN of its bond',
    test: LEDGER,
  },
  {
    what: 'the same on a whole ledger',
    codes: ['who lets a lease run out pays'],
    costs: '1 OPEN',
    test: 'gpu-worker/reconnect.test.ts',
  },
  { what: 'a result for an expired lease', codes: ['Compute.NotLeased'], costs: 'the work and the fee', test: LEDGER },
  { what: 'a result with another nonce', codes: ['Attribution.OtherLease'], costs: 'the fee', test: LEDGER },
  { what: 'a training receipt by another key', codes: ['Attribution.BadSignature'], costs: 'the fee', test: LEDGER },
  { what: 'a training receipt of another chain', codes: ['Attribution.OtherChain'], costs: 'the fee', test: LEDGER },
  {
    what: 'commitments that do not add up',
    codes: ['Attribution.TrainingStruck'],
    costs: '500 OPEN of the bond',
    test: LEDGER,
  },
  {
    what: 'rows that are not the gradients',
    codes: ['COSINE', 'PROJECTION', 'RETRAINING'],
    costs: 'the same',
    test: 'gpu-worker/judgement.test.ts',
  },
  // Answers.
  { what: 'a forged score', codes: ['BAD_RECEIPT', 'a forged score'], costs: 'the answer’s pay', test: ROGUE },
  {
    what: 'a forged score on the ledger',
    codes: ['the payer has everything back'],
    costs: '500 OPEN, half to the finder',
    test: LEDGER,
  },
  { what: 'a replayed receipt', codes: ['OTHER_VOUCHER', 'UNKNOWN_JOB'], costs: 'the answer’s pay', test: ROGUE },
  { what: 'a batch settled twice', codes: ['Attribution.StaleNonce'], costs: 'the fee', test: LEDGER },
  { what: 'a receipt by another key', codes: ['BAD_SIGNATURE'], costs: 'the answer’s pay', test: ROGUE },
  {
    what: 'an answer that is not the receipt’s',
    codes: ['OTHER_TEXT', 'OTHER_PROMPT'],
    costs: 'the answer’s pay',
    test: ROGUE,
  },
  { what: 'a tampered feature', codes: ['COSINE'], costs: '500 OPEN of the bond', test: 'gpu-worker/audits.test.ts' },
  {
    what: 'an answer ended early, or of another adapter',
    codes: ['GENERATION'],
    costs: 'the same',
    test: 'gpu-worker/judgement.test.ts',
  },
  {
    what: 'settings or a prompt that were not asked for',
    codes: ['GENERATION', 'REQUEST'],
    costs: 'the same',
    test: 'gpu-worker/judgement.test.ts',
  },
  { what: 'a request that the voucher was not signed for', codes: ['BAD_VOUCHER'], costs: 'the request', test: ROGUE },
  {
    what: 'a request that is denied afterwards',
    codes: ['OTHER_REQUEST'],
    costs: 'nothing: the signature stands',
    test: 'main-job/thread.test.ts',
  },
  {
    what: 'an answer that is not disclosed',
    codes: ['UNDISCLOSED'],
    costs: 'the same',
    test: 'gpu-worker/judgement.test.ts',
  },
  { what: 'a silent auditor', codes: ['silence, kept-back verdicts'], costs: '10 OPEN of its bond', test: AUDITS },
  { what: 'a verdict other than the committed one', codes: ['Audits.OtherCommitment'], costs: 'the fee', test: AUDITS },
  // Payers.
  { what: 'a voucher over the deposit', codes: ['DEPOSIT_SPENT'], costs: 'the request', test: ROGUE },
  {
    what: 'the same at the gateway',
    codes: ['402 insufficient_quota'],
    costs: 'the request',
    test: 'rpc/gateway.test.ts',
  },
  {
    what: 'the same in settlement',
    codes: ['Attribution.OverVoucher', 'Attribution.OverAllocation'],
    costs: 'the worker’s fee',
    test: LEDGER,
  },
  {
    what: 'a voucher of a number that was answered, or out of order',
    codes: ['STALE_VOUCHER'],
    costs: 'the request',
    test: AGAIN,
  },
  {
    what: 'a voucher replayed',
    codes: ['the same receipt', 'paid once'],
    costs: 'nothing: it is the same answer, paid once',
    test: AGAIN,
  },
  {
    what: 'a worker that comes back with a receipt of an ended lease',
    codes: ['it cannot be paid any more', 'each answer that was heard is paid once, and no other'],
    costs: 'that answer’s pay',
    test: 'gpu-worker/gone.test.ts',
  },
  {
    what: 'a voucher replayed with another prompt',
    codes: ['BAD_VOUCHER'],
    costs: 'the request',
    test: AGAIN,
  },
  { what: 'a voucher by another key', codes: ['BAD_VOUCHER'], costs: 'the request', test: ROGUE },
  // Rewards.
  { what: 'a claim twice', codes: ['Attribution.NothingToClaim'], costs: 'the fee', test: LEDGER },
  {
    what: 'a challenge with a wrong proof',
    codes: ['bad evidence strikes nothing'],
    costs: '1 OPEN to the accused',
    test: LEDGER,
  },
  { what: 'a challenge too late', codes: ['Attribution.WindowClosed'], costs: 'the fee', test: LEDGER },
];

t.test('each failure happens in a test', async (test) => {
  const files = new Map<string, string>();
  for (const { what, codes, test: file } of FAILURES) {
    const text = files.get(file) ?? (await readFile(new URL(file, import.meta.url), 'utf8'));
    files.set(file, text);
    for (const code of codes) test.ok(text.includes(code), `${what}: ${code}`);
  }
  // Tests of the ledger's books go with them: wherever somebody pays, the sums are looked at.
  for (const file of [
    LEDGER,
    'gpu-worker/audits.test.ts',
    'gpu-worker/reconnect.test.ts',
    'gpu-worker/crash.test.ts',
    AGAIN,
    'gpu-worker/gone.test.ts',
    'rpc/gateway.test.ts',
  ])
    test.match(
      files.get(file) ?? (await readFile(new URL(file, import.meta.url), 'utf8')),
      /balanced\(/,
      `${file}: the sums`,
    );
});
