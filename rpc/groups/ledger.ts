/** The ledger's own namespaces: workers attach, applications ask, anybody has receipts checked and explained. */
import { randomBytes } from 'node:crypto';
import { HubError, type HubErrorCode, type InferenceHub, type ReceiptChecks } from '../../node/ports/inference.ts';
import { verifySignature } from '../../runtime/executive/extrinsic.ts';
import type { Hashing, Signatures } from '../../runtime/host.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import {
  attachment,
  generationRequest,
  type SignedAttachment,
  signedProgress,
} from '../../runtime/primitives/attribution/messages.ts';
import { signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { type Codec, decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { type AccountId, asAccountId, type Hash, multiSignature, sameAccount } from '../../runtime/primitives/types.ts';
import { invalidParams, RpcError } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { count, hash, hex, list, optional, text, u32 } from '../server/params.ts';
import { RawJson } from '../server/result.ts';
import type { Session } from '../server/session.ts';

export interface LedgerContext {
  readonly hub: InferenceHub;
  readonly checks: ReceiptChecks;
  /** What signatures are checked with. */
  readonly host: () => Hashing & Signatures;
  readonly genesisHash: () => Hash;
  /** Raw ed25519 key of this node's peer id; zeros for a node without a network. */
  readonly nodeKey: Uint8Array;
}

interface Line {
  readonly account: AccountId;
  readonly challenge: Uint8Array;
  adapters: readonly number[];
  attachment: SignedAttachment;
}
interface Context extends LedgerContext {
  readonly challenges: WeakMap<Session, Uint8Array>;
  readonly lines: WeakMap<Session, Line>;
  readonly models: () => RawJson;
}

const { method, subscription } = definitions<Context>();
const MAX_SERVED = 4_096;
const MAX_TEXT = 1 << 20;
/** How old the list of served adapters may be. */
const MODELS_MS = 200;
/** How far a worker's clock may be apart from this node's. */
const MAX_SKEW_MS = 5 * 60_000;

/** Codes of the application range; `data` names the error for programs. */
const CODES: Readonly<Record<HubErrorCode, number>> = {
  NOT_REGISTERED: 1115,
  NO_WORKER: 1100,
  NOT_SERVED: 1101,
  WRONG_PRICE: 1102,
  BAD_VOUCHER: 1103,
  ASKED_AGAIN: 1104,
  DEPOSIT_SPENT: 1105,
  OVERLOADED: 1106,
  WORKER_LEFT: 1107,
  WORKER_REFUSED: 1108,
  TIMED_OUT: 1109,
  BAD_RECEIPT: 1110,
  UNKNOWN_JOB: 1111,
};

function told<T>(body: () => T): T {
  try {
    return body();
  } catch (problem) {
    throw told.of(problem);
  }
}
told.of = (problem: unknown): unknown =>
  problem instanceof HubError ? new RpcError(CODES[problem.code], problem.message, problem.code) : problem;

function parsed<T>(codec: Codec<T>, bytes: Uint8Array): T {
  try {
    return decode(codec, bytes);
  } catch (problem) {
    if (problem instanceof ScaleError) throw invalidParams(problem.message);
    throw problem;
  }
}

function lineOf({ lines }: Context, session: Session): Line {
  const line = lines.get(session);
  if (line === undefined) throw new RpcError(1112, 'attach first', 'NOT_ATTACHED');
  return line;
}

/** Numbers beyond 2^53 and bytes as JSON has them. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Uint8Array) return hexOf(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
  }
  return value;
}

/** The attachment that the worker has signed. Throws {@link RpcError}. */
function proven(
  { genesisHash, nodeKey, host }: Context,
  challenge: Uint8Array,
  worker: AccountId,
  at: number,
  signature: Uint8Array,
): SignedAttachment {
  if (Math.abs(at - Date.now()) > MAX_SKEW_MS) throw new RpcError(1114, 'the worker’s clock is wrong', 'BAD_CLOCK');
  const payload = { chain: genesisHash(), node: nodeKey, challenge, worker, at: BigInt(at) };
  const signed = { payload, signature: parsed(multiSignature, signature) };
  const checks = host();
  if (!verifySignature(checks, signed.signature, hashOf(checks, attachment, payload), worker)) {
    throw new RpcError(1113, 'the signature is not the worker’s', 'BAD_SIGNATURE');
  }
  return signed;
}

const methods = [
  method(
    'worker_challenge',
    [],
    ({ challenges, nodeKey }, _, session) => {
      const challenge = new Uint8Array(randomBytes(32));
      challenges.set(session, challenge);
      return { challenge: hexOf(challenge), node: hexOf(nodeKey) };
    },
    { connected: true },
  ),
  subscription(
    'worker_attach',
    { unsubscribe: 'worker_detach', notification: 'worker_job' },
    [hash('worker'), count('at'), hex('signature'), list(u32('adapter'), MAX_SERVED)],
    (context, [worker, at, signature, adapters], stream, session) => {
      const { challenges, lines, hub } = context;
      const challenge = challenges.get(session);
      challenges.delete(session);
      if (challenge === undefined) throw new RpcError(1112, 'ask for a challenge first', 'NO_CHALLENGE');
      const account = asAccountId(worker);
      const before = lines.get(session);
      if (before !== undefined && !sameAccount(before.account, account)) {
        throw new RpcError(1116, 'another worker is attached by this connection', 'OTHER_WORKER');
      }
      const attachment = proven(context, challenge, account, at, signature);
      const line: Line = { account, challenge, adapters, attachment };
      const leave = told(() =>
        hub.attach({
          account,
          get adapters() {
            return line.adapters;
          },
          get attachment() {
            return line.attachment;
          },
          send: (message) =>
            stream.notify(
              message.type === 'generate'
                ? { ...message, request: hexOf(encode(generationRequest, message.request)) }
                : message,
            ),
        }),
      );
      lines.set(session, line);
      return () => {
        if (lines.get(session) === line) lines.delete(session);
        leave();
      };
    },
  ),
  method(
    'worker_renew',
    [count('at'), hex('signature')],
    (context, [at, signature], session) => {
      const line = lineOf(context, session);
      line.attachment = proven(context, line.challenge, line.account, at, signature);
    },
    { connected: true },
  ),
  method(
    'worker_serving',
    [list(u32('adapter'), MAX_SERVED)],
    (context, [adapters], session) => {
      lineOf(context, session).adapters = adapters;
    },
    { connected: true },
  ),
  method(
    'worker_delta',
    [text('job', 64), text('text', MAX_TEXT)],
    (context, [job, delta], session) => told(() => context.hub.delta(job, lineOf(context, session).account, delta)),
    { connected: true },
  ),
  method(
    'worker_answer',
    [text('job', 64), hex('receipt'), text('text', MAX_TEXT)],
    async (context, [job, receipt, answer], session) => {
      const { account } = lineOf(context, session);
      try {
        await context.hub.answer(job, account, parsed(signedInferenceReceipt, receipt), answer);
      } catch (problem) {
        throw told.of(problem);
      }
    },
    { connected: true },
  ),
  method(
    'worker_refuse',
    [text('job', 64), text('code', 64), text('message', 1024)],
    (context, [job, code, message], session) =>
      told(() => context.hub.refuse(job, lineOf(context, session).account, code, message)),
    { connected: true },
  ),
  method(
    'worker_progress',
    [hex('report')],
    (context, [report], session) => {
      lineOf(context, session);
      const fault = context.hub.progress(parsed(signedProgress, report));
      // One that came late is no mistake of the worker's.
      if (fault !== undefined && fault !== 'STALE') {
        throw new RpcError(1114, `the report of progress is not taken: ${fault}`, fault);
      }
    },
    { connected: true },
  ),
  subscription(
    'training_watch',
    { unsubscribe: 'training_unwatch', notification: 'training_progress' },
    [u32('order')],
    ({ hub }, [order], stream) => hub.watch(order, (report) => stream.notify(report)),
  ),
  subscription(
    'attribution_subscribeReceipts',
    { unsubscribe: 'attribution_unsubscribeReceipts', notification: 'attribution_receipt' },
    [optional(u32('adapter'))],
    ({ hub }, [adapter], stream) =>
      hub.watchReceipts((receipt) => {
        const { session, nonce, adapter: of, worker } = receipt.payload.voucher.payload;
        if (adapter !== undefined && adapter !== of) return;
        const encoded = hexOf(encode(signedInferenceReceipt, receipt));
        stream.notify(plain({ adapter: of, worker, session, nonce, receipt: encoded }));
      }),
  ),
  method('inference_models', [], ({ models }) => models()),
  subscription(
    'inference_generate',
    { unsubscribe: 'inference_cancel', notification: 'inference_event' },
    [hex('request')],
    ({ hub }, [request], stream) =>
      told(() => {
        const { id, cancel } = hub.generate(parsed(generationRequest, request), {
          delta: (delta) => stream.notify({ type: 'delta', text: delta }),
          answer(receipt, answer) {
            stream.notify({ type: 'answer', text: answer, receipt: hexOf(encode(signedInferenceReceipt, receipt)) });
            stream.close();
          },
          fail({ code, reason, message }) {
            stream.notify({ type: 'error', code, reason: reason ?? null, message });
            stream.close();
          },
        });
        stream.notify({ type: 'job', job: id });
        return cancel;
      }),
  ),
  method('inference_stop', [text('job', 64)], ({ hub }, [job]) => told(() => hub.stop(job))),
  /** `request`: what somebody says was asked; the voucher in the receipt tells whether it was. */
  method('attribution_verify', [hex('receipt'), optional(hex('request'))], async ({ checks }, [receipt, request]) => {
    const asked = request === undefined ? undefined : parsed(requestTerms, request);
    const fault = await checks.verify(parsed(signedInferenceReceipt, receipt), asked);
    return { valid: fault === undefined, fault: fault ?? null };
  }),
  method('attribution_explain', [hex('receipt'), optional(u32('top'))], async ({ checks }, [bytes, top]) => {
    const receipt = parsed(signedInferenceReceipt, bytes);
    const fault = await checks.verify(receipt);
    if (fault !== undefined) throw new RpcError(1110, `the receipt does not hold: ${fault}`, fault);
    return plain(await checks.explain(receipt, Math.min(top ?? 10, 100)));
  }),
];

/** The list of served adapters as text: however many ask, it is made anew a few times a second at most. */
function servedModels(hub: InferenceHub): () => RawJson {
  let made: RawJson | undefined;
  let at = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (made !== undefined && now - at < MODELS_MS) return made;
    made = new RawJson(JSON.stringify(plain(hub.models())));
    at = now;
    return made;
  };
}

export function ledgerGroup(context: LedgerContext): Group {
  const models = servedModels(context.hub);
  return group({ ...context, challenges: new WeakMap(), lines: new WeakMap(), models }, methods);
}
