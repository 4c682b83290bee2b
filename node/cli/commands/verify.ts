/** `openledger verify`: one receipt held against the chain's state, with no trust in the node that is asked. */
import { readFile } from 'node:fs/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Explanation } from '../../../runtime/primitives/attribution/explain.ts';
import type { SignedInferenceReceipt } from '../../../runtime/primitives/attribution/receipts.ts';
import type { RequestTerms } from '../../../runtime/primitives/attribution/request.ts';
import { asHash, type Hash } from '../../../runtime/primitives/types.ts';
import { formatOpen } from '../amounts.ts';
import { withNodeFlag } from '../options.ts';

interface VerifyFlags {
  readonly node: string;
  readonly block?: Hash;
  readonly top: number;
  /** SCALE in hex, or undefined: the one in a gateway's answer, if there is one. */
  readonly request?: string;
  readonly json?: boolean;
}

/** A receipt that does not hold; 1 is for all that kept it from being checked. */
const DOES_NOT_HOLD = 2;
const MAX_RECEIPT_BYTES = 16 * 2 ** 20;

/** What kept a receipt from being checked. */
class UncheckedError extends Error {
  readonly code: string;
  constructor(message: string, code = 'BAD_RECEIPT_INPUT') {
    super(message);
    this.code = code;
  }
}

interface Verdict {
  readonly valid: boolean;
  readonly fault: string | null;
  readonly block: string;
  readonly number: number;
  readonly id: string;
}

async function runVerify(source: string, flags: VerifyFlags): Promise<void> {
  const [{ createHashing }, { createSignatures }, { JsonRpcClient }, { ProvenState }, { ReceiptVerifier }] =
    await Promise.all([
      import('../../crypto/hashing.ts'),
      import('../../crypto/signatures.ts'),
      import('../../../rpc/client/json-rpc.ts'),
      import('../../attribution/proven-state.ts'),
      import('../../attribution/receipt-verifier.ts'),
    ]);
  const [{ fromHex, toHex }, { hashOf }, { inferenceReceipt }, { fetchBlob }] = await Promise.all([
    import('../../../runtime/primitives/bytes.ts'),
    import('../../../runtime/primitives/attribution/canonical.ts'),
    import('../../../runtime/primitives/attribution/receipts.ts'),
    import('../fetch-blob.ts'),
  ]);
  const { receipt, asked } = await readReceipt(source, flags.request);
  const hashing = createHashing();
  const rpc = await JsonRpcClient.connect(flags.node);
  try {
    const signatures = await createSignatures();
    const state = await ProvenState.at(rpc, hashing, signatures, flags.block);
    const genesis = asHash(fromHex(await rpc.call<string>('chain_getBlockHash', 0)));
    const files = new Map<string, Promise<Uint8Array>>();
    const { fault, explanation } = await state.with(async (host) => {
      const verifier = new ReceiptVerifier({
        hashing,
        state: () => host,
        genesisHash: () => genesis,
        blob(hash) {
          const name = toHex(hash);
          const known = files.get(name) ?? fetchBlob(flags.node, hash, hashing);
          files.set(name, known);
          return known;
        },
      });
      const wrong = await verifier.verify(receipt, asked);
      return {
        fault: wrong,
        explanation: wrong === undefined ? await verifier.explain(receipt, flags.top) : undefined,
      };
    });
    if (fault === 'NO_DATA')
      throw new UncheckedError('the node does not serve the adapter’s published files', 'NO_DATA');
    const verdict: Verdict = {
      valid: fault === undefined,
      fault: fault ?? null,
      block: toHex(state.block),
      number: state.header.number,
      id: toHex(hashOf(hashing, inferenceReceipt, receipt.payload)),
    };
    await tell(verdict, receipt, explanation, flags.json === true);
    if (!verdict.valid) process.exitCode = DOES_NOT_HOLD;
  } finally {
    rpc.close();
  }
}

interface Given {
  readonly receipt: SignedInferenceReceipt;
  /** What was asked, if it was given too. */
  readonly asked: RequestTerms | undefined;
}

/** Hex, `-` for standard input, or a file: hex, the bytes themselves, or an answer of the gateway as JSON. */
async function readReceipt(source: string, request: string | undefined): Promise<Given> {
  const [{ fromHex, fromUtf8 }, { decode }, { signedInferenceReceipt }, { requestTerms }] = await Promise.all([
    import('../../../runtime/primitives/bytes.ts'),
    import('../../../runtime/primitives/scale/codec.ts'),
    import('../../../runtime/primitives/attribution/receipts.ts'),
    import('../../../runtime/primitives/attribution/request.ts'),
  ]);
  const isHex = (text: string) => /^0x([0-9a-f]{2})+$/i.test(text);
  const given = isHex(source) ? Buffer.from(source) : await bytesOf(source);
  let text = '';
  try {
    text = fromUtf8(given).trim();
  } catch {
    // The bytes themselves.
  }
  const answer = isHex(text) ? { receipt: text } : answerIn(text);
  const hex = answer.receipt;
  const asked = request ?? answer.request;
  try {
    return {
      receipt: decode(signedInferenceReceipt, hex === undefined ? given : fromHex(hex.toLowerCase())),
      asked: asked === undefined ? undefined : decode(requestTerms, fromHex(asked.toLowerCase())),
    };
  } catch (problem) {
    throw new UncheckedError(`this is no signed receipt: ${(problem as Error).message}`);
  }
}

async function bytesOf(source: string): Promise<Uint8Array> {
  if (source !== '-') return new Uint8Array(await readFile(source));
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of process.stdin) {
    size += (part as Buffer).length;
    if (size > MAX_RECEIPT_BYTES) throw new UncheckedError(`more than ${MAX_RECEIPT_BYTES} bytes`);
    parts.push(part as Buffer);
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** Receipt and request in a gateway's answer or in its `attribution` alone. */
function answerIn(text: string): { readonly receipt?: string; readonly request?: string } {
  if (!text.startsWith('{')) return {};
  try {
    const value = JSON.parse(text) as { attribution?: unknown };
    const { receipt, request } = (value.attribution ?? value) as { receipt?: unknown; request?: unknown };
    return {
      ...(typeof receipt === 'string' && { receipt }),
      ...(typeof request === 'string' && { request }),
    };
  } catch {
    return {};
  }
}

async function tell(
  verdict: Verdict,
  { payload }: SignedInferenceReceipt,
  explanation: Explanation | undefined,
  json: boolean,
): Promise<void> {
  const [{ toHex }, { encodeSs58 }, { blake2b }] = await Promise.all([
    import('../../../runtime/primitives/bytes.ts'),
    import('../../../runtime/primitives/ss58.ts'),
    import('@noble/hashes/blake2.js'),
  ]);
  const address = (key: Uint8Array): string => encodeSs58((data) => blake2b(data, { dkLen: 64 }), { prefix: 42, key });
  const facts = {
    ...verdict,
    worker: address(payload.worker),
    adapter: payload.voucher.payload.adapter,
    session: payload.voucher.payload.session.toString(),
    fee: payload.fee.toString(),
    pool: payload.pool.toString(),
    remainder: payload.remainder.toString(),
    contributors: payload.shares.map(({ contributor, influence, spanMass, amount }) => ({
      account: address(contributor),
      influence: influence.toString(),
      spanMass: spanMass.toString(),
      amount: amount.toString(),
    })),
    records: (explanation?.records ?? []).map(({ index, record, contributor, score }) => ({
      index,
      record: toHex(record),
      contributor: address(contributor),
      score: score.toString(),
    })),
    spans: (explanation?.spans ?? []).map(({ start, length, mass, matches }) => ({
      start,
      length,
      mass,
      matches: matches.map(({ record, offset, contributor }) => ({ record, offset, account: address(contributor) })),
    })),
  };
  if (json) {
    process.stdout.write(`${JSON.stringify(facts)}\n`);
    return;
  }
  const { default: Table } = await import('cli-table3');
  const lines = [
    verdict.valid ? `The receipt holds after block ${verdict.number} (${verdict.block}).` : '',
    verdict.valid
      ? ''
      : `The receipt DOES NOT HOLD: ${verdict.fault}, after block ${verdict.number} (${verdict.block}).`,
    `receipt ${facts.id}`,
    `worker ${facts.worker}, adapter ${facts.adapter}, session ${facts.session}`,
    `fee ${formatOpen(payload.fee)} OPEN, of it for contributors ${formatOpen(payload.pool)} OPEN`,
  ];
  process.stdout.write(`${lines.filter((each) => each !== '').join('\n')}\n`);
  if (!verdict.valid) return;
  const shares = new Table({ head: ['contributor', 'influence', 'spans', 'OPEN'], style: { head: [] } });
  for (const [at, { account, influence, spanMass }] of facts.contributors.entries()) {
    shares.push([account, influence, spanMass, formatOpen(payload.shares[at]!.amount)]);
  }
  const records = new Table({ head: ['record', 'contributor', 'score', 'hash'], style: { head: [] } });
  for (const { index, contributor, score, record } of facts.records) records.push([index, contributor, score, record]);
  const spans = new Table({ head: ['tokens', 'stand in record', 'at', 'contributor'], style: { head: [] } });
  for (const { start, length, matches } of facts.spans) {
    for (const { record, offset, account } of matches) {
      spans.push([`${start}–${start + length - 1}`, record, offset, account]);
    }
  }
  for (const table of [shares, records, spans]) if (table.length > 0) process.stdout.write(`${table.toString()}\n`);
}

function blockHash(text: string): Hash {
  if (!/^0x[0-9a-f]{64}$/i.test(text)) throw new InvalidArgumentError('a block hash has 64 hex digits');
  return asHash(new Uint8Array(Buffer.from(text.slice(2), 'hex')));
}

function least(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 100) throw new InvalidArgumentError('0 to 100');
  return value;
}

export function verifyCommands(program: Command): void {
  const verify = program
    .command('verify <receipt>')
    .description(
      'check an influence receipt against the chain’s state, by proofs: hex, a file, or - for standard input. ' +
        'Exit code 0: it holds; 2: it does not; 1: it could not be checked',
    );
  withNodeFlag(verify)
    .addOption(
      new Option('--block <hash>', 'after which block: one that you trust (default: the last final one)').argParser(
        blockHash,
      ),
    )
    .addOption(
      new Option('--request <hex>', 'what was asked: is it what the payer signed for? (default: the answer’s)'),
    )
    .addOption(new Option('--top <n>', 'records to name, highest scores first').argParser(least).default(10))
    .addOption(new Option('--json', 'for programs'))
    .action(runVerify);
}
