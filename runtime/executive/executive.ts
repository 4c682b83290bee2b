/** Blocks and transactions: initialize, apply, finalize, execute, validate (`frame_executive`). */
import type { Assembly } from '../framework/assembly.ts';
import {
  addWeight,
  type DispatchInfo,
  type DispatchOutcome,
  NONE,
  type Origin,
  signed,
  subWeight,
} from '../framework/dispatch.ts';
import type { AnyExtension, TransactionContext } from '../framework/extension.ts';
import type { Env, InherentDef, UnsignedDef } from '../framework/pallet.ts';
import type { RuntimeCall } from '../framework/runtime-call.ts';
import { type Host, isHostFault } from '../host.ts';
import * as system from '../pallets/standard/system.ts';
import { equalBytes, toHex } from '../primitives/bytes.ts';
import { type Block, digest, extrinsicItems, type Header } from '../primitives/header.ts';
import { InvalidBlock } from '../primitives/invalid-block.ts';
import { encode } from '../primitives/scale/codec.ts';
import { ScaleError } from '../primitives/scale/io.ts';
import { asHash, type Hash, type RuntimeVersion } from '../primitives/types.ts';
import {
  invalid,
  TransactionRefused,
  type TransactionSource,
  type TransactionValidity,
  type TransactionValidityError,
  type ValidTransaction,
} from '../primitives/validity.ts';
import { Execution } from './execution.ts';
import { type Extrinsic, ExtrinsicCodec, type ExtrinsicHead, isBare, lookup, verifySignature } from './extrinsic.ts';
import { HookRunner } from './hooks.ts';

/**
 * Applied (with the call's outcome), or refused and without a trace. `problem` is what an extrinsic threw that nobody
 * expected: a fault of the runtime, but the extrinsic's failure all the same.
 */
export type ApplyResult =
  | { readonly ok: true; readonly outcome: DispatchOutcome }
  | { readonly ok: false; readonly error: TransactionValidityError; readonly problem?: string };

const reasonOf = (problem: unknown): string =>
  problem instanceof Error ? `${problem.name}: ${problem.message}` : String(problem);

export interface InherentData {
  /** By identifier (`timstap0`), SCALE-encoded. */
  readonly [identifier: string]: Uint8Array;
}

/** What a node has against an inherent. */
export interface InherentProblem {
  readonly identifier: string;
  /** Otherwise it may be fine later. */
  readonly fatal: boolean;
  readonly message: string;
}

export interface SignatureCheck {
  readonly signature: { readonly type: 'Ed25519' | 'Sr25519' | 'Ecdsa'; readonly value: Uint8Array };
  readonly message: Uint8Array;
  readonly signer: Uint8Array;
}

const STATE_VERSION = 1;

export class Executive {
  readonly assembly: Assembly;
  readonly extrinsics: ExtrinsicCodec;
  readonly extensions: readonly AnyExtension[];
  readonly #version: RuntimeVersion;
  readonly #hooks: HookRunner;
  readonly #inherents: readonly (InherentDef & { readonly pallet: string })[];

  constructor(assembly: Assembly, extensions: readonly AnyExtension[], version: RuntimeVersion) {
    this.assembly = assembly;
    this.extrinsics = new ExtrinsicCodec(assembly.call, extensions);
    this.extensions = extensions;
    this.#version = version;
    this.#hooks = new HookRunner(assembly);
    this.#inherents = assembly.pallets.flatMap(({ name, inherent }) =>
      inherent === undefined ? [] : [{ ...inherent, pallet: name }],
    );
  }

  // ---- blocks ------------------------------------------------------------------------------------------------

  initializeBlock(host: Host, header: Header): void {
    system.resetEvents(host);
    const execution = new Execution(this.assembly, host);
    system.initialize(host, header.number, header.parentHash, header.digest.logs);
    system.noteRuntimeVersion(host, this.#version);
    const used = this.#hooks.initialize(execution, header.number);
    system.addConsumed(host, 'Mandatory', addWeight(system.BLOCK_WEIGHTS.baseBlock, used));
    execution.flush();
    system.enterPhase(host, { type: 'ApplyExtrinsic', value: 0 });
  }

  /** Calls that the author must put in, made of its data, in the order of the pallets. */
  inherentExtrinsics(host: Host, data: InherentData): Uint8Array[] {
    const env = new Execution(this.assembly, host, false);
    return this.#inherents.flatMap((inherent) => {
      const raw = data[inherent.identifier];
      const value = raw === undefined ? undefined : inherent.create(env, raw);
      return value === undefined ? [] : [this.extrinsics.encodeBare({ type: inherent.pallet, value })];
    });
  }

  /** Checks a block's inherents against this node's own data: the reasons against it, none if it is fine. */
  checkInherents(host: Host, block: Block, data: InherentData): InherentProblem[] {
    const env = new Execution(this.assembly, host, false);
    const found = new Set<string>();
    const problems = block.extrinsics.flatMap((bytes) => {
      const call = this.#bareCall(bytes);
      const inherent = call && this.#inherentOf(call);
      if (call === undefined || inherent === undefined) return [];
      found.add(inherent.identifier);
      const own = data[inherent.identifier];
      const problem = own === undefined ? undefined : inherent.check(env, call.value.value ?? {}, own);
      return problem === undefined ? [] : [{ identifier: inherent.identifier, ...problem }];
    });
    for (const { identifier, required } of this.#inherents) {
      if (required && !found.has(identifier)) problems.push({ identifier, fatal: true, message: 'missing inherent' });
    }
    return problems;
  }

  /** What does not decode is found out when it is applied. */
  #bareCall(bytes: Uint8Array): RuntimeCall | undefined {
    if (!isBare(bytes)) return undefined;
    try {
      return this.extrinsics.decode(bytes).call;
    } catch (problem) {
      if (problem instanceof ScaleError) return undefined;
      throw problem;
    }
  }

  #inherentOf(call: RuntimeCall): (InherentDef & { readonly pallet: string }) | undefined {
    return this.#inherents.find((each) => each.pallet === call.type && each.call === call.value.type);
  }

  /** Whatever the extrinsic does, its failure is its own: throws nothing but faults of the host. */
  applyExtrinsic(host: Host, bytes: Uint8Array): ApplyResult {
    const execution = new Execution(this.assembly, host);
    try {
      return { ok: true, outcome: execution.transactional(() => this.#apply(execution, bytes)) };
    } catch (problem) {
      return refusalOf(problem);
    }
  }

  #apply(env: Execution, bytes: Uint8Array): DispatchOutcome {
    const { host } = env;
    const blockNumber = system.blockNumber(host);
    const head = this.extrinsics.decodeHead(bytes);
    this.#precheck(env, head);
    const extrinsic = this.extrinsics.decodeCall(head);
    const { signer, origin } = this.#check(env, extrinsic, blockNumber);
    const info = this.#infoOf(extrinsic);
    const tx: TransactionContext = { env, signer, call: extrinsic.call, info, length: extrinsic.length, blockNumber };
    system.noteExtrinsic(host, bytes);

    if (extrinsic.preamble.type === 'Bare' && this.#inherentOf(extrinsic.call) === undefined) {
      return this.#applyUnsigned(env, tx, extrinsic);
    }
    if (extrinsic.preamble.type === 'Bare') {
      if (system.inherentsApplied(host)) throw invalid('Call');
      system.addConsumed(host, info.class, addWeight(info.weight, system.limitsOf(info.class).baseExtrinsic));
      const outcome = this.#dispatch(env, extrinsic, () => env.dispatchInherent(extrinsic.call));
      if (!outcome.ok) throw invalid('BadMandatory');
      this.#finishExtrinsic(env, tx, outcome);
      return outcome;
    }

    if (info.class === 'Mandatory') throw invalid('MandatoryValidation');
    if (!system.inherentsApplied(host)) system.noteInherentsApplied(host);
    const { extra } = extrinsic.preamble;
    this.extensions.forEach((each, i) => {
      each.validate?.(tx, extra[i]);
    });
    const prepared = this.extensions.map((each, i) => each.prepare?.(tx, extra[i]));
    const outcome = this.#dispatch(env, extrinsic, () => env.dispatch(extrinsic.call, origin));
    this.extensions.forEach((each, i) => {
      each.postDispatch?.(tx, prepared[i], outcome);
    });
    this.#finishExtrinsic(env, tx, outcome);
    return outcome;
  }

  /** A call that proves itself, behind the inherents. */
  #applyUnsigned(env: Execution, tx: TransactionContext, extrinsic: Extrinsic): DispatchOutcome {
    this.#unsignedOf(tx.call).validate(env, tx.call.value.value ?? {});
    if (!system.inherentsApplied(env.host)) system.noteInherentsApplied(env.host);
    const checks = this.extensions.filter(({ bare }) => bare);
    for (const each of checks) each.validate?.(tx, undefined);
    const prepared = checks.map((each) => each.prepare?.(tx, undefined));
    const outcome = this.#dispatch(env, extrinsic, () => env.dispatch(tx.call, NONE));
    checks.forEach((each, i) => {
      each.postDispatch?.(tx, prepared[i], outcome);
    });
    this.#finishExtrinsic(env, tx, outcome);
    return outcome;
  }

  /** What an extrinsic announces: what its call does, and what it takes to read the extrinsic. */
  #infoOf({ call, overhead }: Extrinsic): DispatchInfo {
    const info = this.assembly.infoOf(call);
    return { ...info, weight: addWeight(info.weight, overhead) };
  }

  /** What a call announces in an extrinsic of the given length. */
  infoOfCall(call: RuntimeCall, length: number): DispatchInfo {
    const callBytes = encode(this.assembly.call, call);
    return this.#infoOf(this.extrinsics.decodeCall({ version: 4, preamble: { type: 'Bare' }, callBytes, length }));
  }

  /** See {@link infoOfCall}, for an encoded extrinsic. Throws {@link ScaleError}. */
  infoOfExtrinsic(bytes: Uint8Array): { readonly extrinsic: Extrinsic; readonly info: DispatchInfo } {
    const extrinsic = this.extrinsics.decode(bytes);
    return { extrinsic, info: this.#infoOf(extrinsic) };
  }

  /** Runs the call. What it says that it used is completed by what reading it took; its events are weighed. */
  #dispatch(env: Execution, { overhead }: Extrinsic, run: () => DispatchOutcome): DispatchOutcome {
    env.beginEvents();
    const outcome = run();
    system.addConsumed(env.host, 'Mandatory', env.eventWeight());
    env.beginEvents();
    const { actualWeight } = outcome.post;
    if (actualWeight === undefined) return outcome;
    return { ...outcome, post: { ...outcome.post, actualWeight: addWeight(actualWeight, overhead) } };
  }

  /**
   * The cheap reasons to refuse an extrinsic, before its call is decoded and its signature checked: its length, its
   * format, its signer's nonce and balance. Throws {@link TransactionRefused}.
   */
  #precheck(env: Env, head: ExtrinsicHead): void {
    if (head.length > system.maxLengthOf('Operational')) throw invalid('ExhaustsResources');
    const { preamble } = head;
    if (preamble.type === 'Bare') return;
    // No extension of ours authorizes a general transaction, so it has nobody who pays.
    if (preamble.type === 'General') throw invalid('BadSigner');
    const signer = lookup(preamble.address);
    if (signer === undefined) throw new TransactionRefused({ type: 'Unknown', value: { type: 'CannotLookup' } });
    this.extensions.forEach((each, i) => {
      each.precheck?.({ env, signer, length: head.length }, preamble.extra[i]);
    });
  }

  /** Throws {@link TransactionRefused} for calls that need a signer. */
  #unsignedOf(call: RuntimeCall): UnsignedDef {
    const def = this.assembly.pallets.find(({ name }) => name === call.type)?.unsigned;
    if (def === undefined || def.call !== call.value.type) {
      throw new TransactionRefused({ type: 'Unknown', value: { type: 'NoUnsignedValidator' } });
    }
    return def;
  }

  #finishExtrinsic(env: Execution, tx: TransactionContext, outcome: DispatchOutcome): void {
    const base = system.limitsOf(tx.info.class).baseExtrinsic;
    system.noteApplied(
      env,
      { ...tx.info, weight: addWeight(tx.info.weight, base) },
      outcome.post.actualWeight
        ? { ...outcome, post: { ...outcome.post, actualWeight: addWeight(outcome.post.actualWeight, base) } }
        : outcome,
    );
    env.flush();
  }

  /** Signer and origin of an extrinsic whose signature holds. Throws {@link TransactionRefused}. */
  #check(env: Env, extrinsic: Extrinsic, blockNumber: number): { signer?: never; origin: Origin } | Signer {
    const { preamble } = extrinsic;
    if (preamble.type === 'Bare') return { origin: NONE };
    if (preamble.type === 'General') throw invalid('BadSigner');
    const signer = lookup(preamble.address);
    if (signer === undefined) throw new TransactionRefused({ type: 'Unknown', value: { type: 'CannotLookup' } });
    const payload = this.extrinsics.signingPayload(env, extrinsic, blockNumber);
    if (!verifySignature(env.host, preamble.signature, payload, signer)) throw invalid('BadProof');
    return { signer, origin: signed(signer) };
  }

  /**
   * The signature check that an extrinsic needs in the block that {@link enterNext} entered, to be made elsewhere;
   * undefined where it needs none, or is refused without one. Does not decode the call.
   */
  signatureCheck(host: Host, bytes: Uint8Array): SignatureCheck | undefined {
    try {
      const head = this.extrinsics.decodeHead(bytes);
      if (head.preamble.type !== 'Signed') return undefined;
      const env = new Execution(this.assembly, host, false);
      this.#precheck(env, head);
      const signer = lookup(head.preamble.address);
      if (signer === undefined) return undefined;
      const message = this.extrinsics.signingPayload(env, head, system.blockNumber(host));
      return { signature: head.preamble.signature, message, signer };
    } catch (problem) {
      refusalOf(problem);
      return undefined;
    }
  }

  finalizeBlock(host: Host): Header {
    const number = system.blockNumber(host);
    system.noteFinishedExtrinsics(host);
    const env = new Execution(this.assembly, host);
    const remaining = subWeight(system.BLOCK_WEIGHTS.maxBlock, system.totalConsumed(system.consumed(host)));
    system.addConsumed(host, 'Mandatory', this.#hooks.idle(env, number, remaining));
    this.#hooks.finalize(env, number);
    env.flush();
    const { digest: logs, extrinsics } = system.finish(host);
    const parentHash = system.parentHash(host);
    return {
      parentHash,
      number,
      stateRoot: asHash(host.storageRoot(STATE_VERSION)),
      extrinsicsRoot: asHash(host.orderedTrieRoot(extrinsicItems(extrinsics))),
      digest: logs,
    };
  }

  /**
   * Executes a whole block (its header without the seal). With `own` its inherents are held against this node's data first:
   * if there is something against them, that is returned, and the host's state is of no use. Throws {@link InvalidBlock}.
   */
  executeBlock(host: Host, block: Block, own?: InherentData): readonly InherentProblem[] {
    const { header, extrinsics } = block;
    this.initializeBlock(host, header);
    const problems = own === undefined ? [] : this.checkInherents(host, block, own);
    if (problems.length > 0) return problems;
    extrinsics.forEach((bytes, index) => {
      const applied = this.applyExtrinsic(host, bytes);
      if (!applied.ok) {
        const problem = applied.problem === undefined ? '' : ` (${applied.problem})`;
        throw new InvalidBlock('BAD_EXTRINSIC', `extrinsic ${index}: ${applied.error.value.type}${problem}`);
      }
    });
    const made = this.finalizeBlock(host);
    if (!equalBytes(encode(digest, made.digest), encode(digest, header.digest))) {
      throw new InvalidBlock('DIGEST_MISMATCH', 'the digest is not what the block makes');
    }
    const same = (code: InvalidBlock['code'], what: string, ours: Hash, theirs: Hash) => {
      if (!equalBytes(ours, theirs)) {
        throw new InvalidBlock(code, `${what} should be ${toHex(ours)}, the header says ${toHex(theirs)}`);
      }
    };
    same('EXTRINSICS_ROOT_MISMATCH', 'extrinsics root', made.extrinsicsRoot, header.extrinsicsRoot);
    same('STATE_ROOT_MISMATCH', 'state root', made.stateRoot, header.stateRoot);
    return [];
  }

  // ---- transactions ------------------------------------------------------------------------------------------

  /** Puts the state of block `parent` where transactions of the next block find it: its own hash is known only from there on. */
  enterNext(host: Host, parent: Hash): void {
    system.initialize(host, system.blockNumber(host) + 1, parent, []);
  }

  /** Whether a transaction could go into a block on top of `parent`, whose state the host has. Leaves no trace. */
  validateTransaction(host: Host, source: TransactionSource, bytes: Uint8Array, parent: Hash): TransactionValidity {
    host.beginTransaction();
    try {
      this.enterNext(host, parent);
      return this.validateNext(host, source.type, bytes);
    } finally {
      host.rollbackTransaction();
    }
  }

  /** Whether a transaction could go into the block that {@link enterNext} entered. Leaves no trace. */
  validateNext(host: Host, source: TransactionSource['type'], bytes: Uint8Array): TransactionValidity {
    host.beginTransaction();
    try {
      return { ok: true, value: this.#validate(host, source, bytes) };
    } catch (problem) {
      const refused = refusalOf(problem);
      if (refused.problem !== undefined) host.log('error', 'executive', `a transaction threw: ${refused.problem}`);
      return { ok: false, error: refused.error };
    } finally {
      host.rollbackTransaction();
    }
  }

  #validate(host: Host, source: TransactionSource['type'], bytes: Uint8Array): ValidTransaction {
    const head = this.extrinsics.decodeHead(bytes);
    const env = new Execution(this.assembly, host, false);
    const blockNumber = system.blockNumber(host);
    // Each node reports evidence that it has seen: taken from strangers, it would be a way to have signatures checked for free.
    if (head.preamble.type === 'Bare' && source === 'External') throw invalid('Call');
    this.#precheck(env, head);
    const extrinsic = this.extrinsics.decodeCall(head);
    if (extrinsic.preamble.type === 'Bare') {
      const def = this.#unsignedOf(extrinsic.call);
      return def.validate(env, extrinsic.call.value.value ?? {});
    }
    const { signer } = this.#check(env, extrinsic, blockNumber);
    const info = this.#infoOf(extrinsic);
    if (info.class === 'Mandatory') throw invalid('MandatoryValidation');
    const tx: TransactionContext = { env, signer, call: extrinsic.call, info, length: extrinsic.length, blockNumber };
    const { extra } = extrinsic.preamble;
    const parts = this.extensions.map((each, i) => each.validate?.(tx, extra[i]) ?? {});
    return parts.reduce<ValidTransaction>(combine, {
      priority: 0n,
      requires: [],
      provides: [],
      longevity: MAX_U64,
      propagate: true,
    });
  }
}

/** What an extrinsic that threw is refused with. Rethrows faults of the host. */
function refusalOf(problem: unknown): { ok: false; error: TransactionValidityError; problem?: string } {
  if (isHostFault(problem)) throw problem;
  if (problem instanceof TransactionRefused) return { ok: false, error: problem.reason };
  const error = invalid('Call').reason;
  return problem instanceof ScaleError ? { ok: false, error } : { ok: false, error, problem: reasonOf(problem) };
}

interface Signer {
  readonly signer: NonNullable<ReturnType<typeof lookup>>;
  readonly origin: Origin;
}

const MAX_U64 = (1n << 64n) - 1n;

/** As `ValidTransaction::combine_with`: priorities add up, the shortest longevity holds. */
function combine(all: ValidTransaction, part: Partial<ValidTransaction>): ValidTransaction {
  const priority = all.priority + (part.priority ?? 0n);
  const longevity = part.longevity ?? MAX_U64;
  return {
    priority: priority < MAX_U64 ? priority : MAX_U64,
    requires: [...all.requires, ...(part.requires ?? [])],
    provides: [...all.provides, ...(part.provides ?? [])],
    longevity: longevity < all.longevity ? longevity : all.longevity,
    propagate: all.propagate && (part.propagate ?? true),
  };
}
