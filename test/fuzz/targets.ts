/**
 * What is thrown at each decoder, and what must hold whatever it is: only the errors that callers expect, no answer that is
 * false, one encoding a value.
 */
import { commitCodec, gossipMessage, justificationCodec } from '../../consensus/grandpa/messages.ts';
import { nibblesOf, type StateVersion } from '../../node/state/node.ts';
import { ProofError, verifyProof } from '../../node/state/proof.ts';
import { inMemory, Trie } from '../../node/state/trie.ts';
import { withLength } from '../../rpc/server/hex.ts';
import { Session } from '../../rpc/server/session.ts';
import { itemsOf } from '../../runtime/framework/storage.ts';
import { featureFile } from '../../runtime/primitives/attribution/features.ts';
import { batchFile } from '../../runtime/primitives/attribution/ledger.ts';
import { compareBytes, concatBytes, equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { block, header, justifications } from '../../runtime/primitives/header.ts';
import { type Codec, decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { hashing } from '../rpc/fake.ts';
import { encodingOf, mutate } from './inputs.ts';
import { requestText } from './json.ts';
import { assembly, executive, type Ledger, outer, signedExtrinsic } from './ledger.ts';
import { Random } from './random.ts';

export interface Target {
  readonly name: string;
  /** Inputs of a million. */
  readonly share: number;
  /** Makes one input and tries it. Throws {@link Finding} when something came of it that must not. */
  run(random: Random): void | Promise<void>;
}

export class Finding extends Error {
  readonly input: string;
  constructor(what: string, input: Uint8Array | string, options?: ErrorOptions) {
    super(what, options);
    this.input = typeof input === 'string' ? input : toHex(input);
  }
}

/** Runs it and lets the expected errors pass. */
function attempt<T>(input: Uint8Array, expected: new (...args: never[]) => Error, run: () => T): T | undefined {
  try {
    return run();
  } catch (problem) {
    if (problem instanceof expected) return undefined;
    throw new Finding(`unexpected: ${String(problem)}`, input, { cause: problem });
  }
}

// ---- SCALE ---------------------------------------------------------------------------------------------------

/** Every codec of the ledger that meets bytes of others. */
export function codecs(): (readonly [string, Codec<unknown>])[] {
  const stored = assembly.pallets.flatMap((pallet) =>
    (pallet.storage === undefined ? [] : itemsOf(pallet.storage)).flatMap(([item, { keys, value }]) => [
      [`${pallet.name}.${item}`, value] as const,
      ...keys.map(({ codec }, i) => [`${pallet.name}.${item}, key ${i}`, codec] as const),
    ]),
  );
  const wire: [string, Codec<unknown>][] = [
    ['call', assembly.call as Codec<unknown>],
    ['event', assembly.event as Codec<unknown>],
    ['header', header as Codec<unknown>],
    ['block', block as Codec<unknown>],
    ['justifications', justifications as Codec<unknown>],
    ['GRANDPA justification', justificationCodec as Codec<unknown>],
    ['GRANDPA commit', commitCodec as Codec<unknown>],
    ['GRANDPA gossip', gossipMessage as Codec<unknown>],
    ['feature file', featureFile as Codec<unknown>],
    ['batch file', batchFile as Codec<unknown>],
  ];
  return [...wire, ...stored];
}

function scale(): Target {
  // What a codec says of its type is put together anew each time it is asked.
  const all = codecs().map(([name, codec]) => ({ name, codec, type: codec.type }));
  return {
    name: 'scale',
    share: 400_000,
    run(random) {
      const { name, codec, type } = random.chance(0.4) ? all[random.below(10)]! : random.pick(all);
      const made = random.chance(0.2) ? random.bytes(random.length(512)) : encodingOf(type, random, outer);
      const input = random.chance(0.8) ? mutate(made, random) : made;
      attempt(input, ScaleError, () => {
        const value = decode(codec, input);
        const again = encode(codec, value);
        if (!equalBytes(again, input)) throw new Error(`${name}: comes back as ${toHex(again)}`);
      });
    },
  };
}

// ---- extrinsics ----------------------------------------------------------------------------------------------

const NO_GENESIS = new Uint8Array(32);

function anyExtrinsic(random: Random, genesisHash: Uint8Array = NO_GENESIS): Uint8Array {
  switch (random.below(5)) {
    case 0:
      return random.bytes(random.length(400));
    case 1:
      return concatBytes(Uint8Array.of(random.pick([4, 5, 0x45, 0x84, 0x85])), random.bytes(random.length(300)));
    case 2:
      return concatBytes(Uint8Array.of(random.pick([4, 5])), encodingOf(assembly.call.type, random, outer));
    default:
      return signedExtrinsic(random, genesisHash);
  }
}

function extrinsics(): Target {
  // Signing costs more than all else, so the same few are used again.
  const signed = Array.from({ length: 500 }, (_, i) => signedExtrinsic(new Random('signed', i), NO_GENESIS));
  return {
    name: 'extrinsic',
    share: 250_000,
    run(random) {
      const made = random.chance(0.6) ? random.pick(signed) : anyExtrinsic(random);
      const input = random.chance(0.9) ? mutate(made, random) : made;
      attempt(input, ScaleError, () => {
        const { callBytes, call } = executive.extrinsics.decode(input);
        if (!equalBytes(encode(assembly.call, call), callBytes)) throw new Error('the call comes back as another');
      });
    },
  };
}

/** What a pool may answer to bytes: bad format, invalid, unknown, banned, known, too low, … (Substrate's author errors). */
const REFUSALS = new Set([1001, 1002, 1010, 1011, 1012, 1013, 1014, 1015, 1016, -32602]);

function submissions({ dispatcher, client, faults }: Ledger): Target {
  const { genesisHash } = client.blocks.info();
  const signed = Array.from({ length: 400 }, (_, i) => signedExtrinsic(new Random('submitted', i), genesisHash));
  const session = new Session({ unsafe: false, maxSubscriptions: 0, send: undefined });
  return {
    name: 'submit',
    share: 100_000,
    async run(random) {
      const made = random.chance(0.6) ? random.pick(signed) : anyExtrinsic(random, genesisHash);
      const inner = random.chance(0.8) ? mutate(made, random) : made;
      const whole = random.chance(0.95) ? withLength(inner) : inner;
      const input = random.chance(0.05) ? mutate(whole, random) : whole;
      const text = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'author_submitExtrinsic', params: [toHex(input)] });
      const answer = await new Promise<string | undefined>((resolve) => dispatcher.handle(session, text, resolve));
      const { result, error } = JSON.parse(answer ?? '{}');
      const isFine = error === undefined ? /^0x[0-9a-f]{64}$/.test(result) : REFUSALS.has(error.code);
      const found = faults();
      if (!isFine || found.length > 0) throw new Finding(`answered ${answer}; ${found.join('; ')}`, input);
    },
  };
}

// ---- JSON-RPC ------------------------------------------------------------------------------------------------

/** Whether an answer is one by the specification. */
function isAnswer(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0 && value.every(isAnswer);
  const { jsonrpc, id, result, error } = value as Record<string, unknown>;
  const failed = error as { code?: unknown; message?: unknown } | undefined;
  return (
    jsonrpc === '2.0' &&
    id !== undefined &&
    (failed === undefined) !== (result === undefined) &&
    (failed === undefined || (Number.isInteger(failed.code) && typeof failed.message === 'string'))
  );
}

/** Methods that wait for something, or change what the other inputs meet. */
const LEFT_OUT = new Set(['author_rotateKeys', 'author_rotateKeysWithOwner']);
const INPUTS_A_SESSION = 200;

function jsonRpc({ dispatcher, client, faults }: Ledger): Target {
  const methods = [...dispatcher.names].filter((name) => !LEFT_OUT.has(name));
  let session: Session | undefined;
  let inputs = 0;
  return {
    name: 'json-rpc',
    share: 150_000,
    async run(random) {
      if (session === undefined || ++inputs % INPUTS_A_SESSION === 0) {
        session?.close();
        session = new Session({ unsafe: random.chance(0.5), maxSubscriptions: 64, send: () => {} });
      }
      const input = requestText(random, methods, client.blocks.info().genesisHash);
      let answers = 0;
      const answer = await new Promise<string | undefined>((resolve, reject) => {
        const late = setTimeout(() => reject(new Finding('no answer within 10 s', input)), 10_000);
        dispatcher.handle(session!, input, (text) => {
          answers++;
          clearTimeout(late);
          resolve(text);
        });
      });
      const found = faults();
      const isFine =
        answer === undefined
          ? input.trim().startsWith('{') || input.trim().startsWith('[')
          : isAnswer(JSON.parse(answer));
      if (!isFine || answers !== 1 || found.length > 0) {
        throw new Finding(`${answers} answers, ${answer?.slice(0, 500)}; ${found.join('; ')}`, input);
      }
    },
  };
}

// ---- proofs --------------------------------------------------------------------------------------------------

function proofs(): Target {
  const states = Array.from({ length: 24 }, (_, i) => {
    const random = new Random('state', i);
    const key = () => random.bytes(1 + random.below(4)).map((byte) => byte & 0x33);
    const entries = new Map<string, Uint8Array>();
    for (let n = random.below(80); n >= 0; n--) entries.set(toHex(key()), random.bytes(random.below(70)));
    const trie = new Trie(hashing.blake2_256, inMemory);
    const changes = [...entries].map(([name, value]) => ({
      key: nibblesOf(Uint8Array.from(Buffer.from(name.slice(2), 'hex'))),
      value,
    }));
    changes.sort((a, b) => compareBytes(a.key, b.key));
    const root = trie.update(undefined, changes, (i % 2) as StateVersion, []);
    return { entries, trie, root, hash: trie.rootHash(root) };
  });
  return {
    name: 'proof',
    share: 100_000,
    run(random) {
      const { entries, trie, root, hash } = random.pick(states);
      const keys = Array.from({ length: 1 + random.below(4) }, () =>
        random.bytes(random.below(5)).map((byte) => byte & 0x33),
      );
      const honest = trie.prove(root, keys);
      const nodes = honest
        .filter(() => random.chance(0.95))
        .map((node) => (random.chance(0.3) ? mutate(node, random) : node));
      if (random.chance(0.3)) nodes.push(random.bytes(random.length(200)));
      // A made-up node as the root itself gets as far as the decoder.
      const lead = random.chance(0.5) && nodes.length > 0 ? random.pick(nodes) : undefined;
      const input = concatBytes(...nodes);
      const values = attempt(input, ProofError, () =>
        verifyProof(hashing.blake2_256, lead === undefined ? hash : hashing.blake2_256(lead), nodes, keys),
      );
      if (values === undefined || (lead !== undefined && !equalBytes(lead, honest[0] ?? NO_GENESIS))) return;
      keys.forEach((key, i) => {
        const truth = entries.get(toHex(key));
        const said = values[i];
        if (said === undefined ? truth !== undefined : truth === undefined || !equalBytes(said, truth)) {
          throw new Finding(`a bent proof shows ${said && toHex(said)} for ${toHex(key)}`, input);
        }
      });
    },
  };
}

export const PURE: readonly (() => Target)[] = [scale, extrinsics, proofs];
export const SERVED: readonly ((ledger: Ledger) => Target)[] = [submissions, jsonRpc];
