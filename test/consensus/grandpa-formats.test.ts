/** Encodings against @polkadot/types, a justification of a live chain, and justifications with real signatures. */

import { readFileSync } from 'node:fs';
import { TypeRegistry } from '@polkadot/types';
import t from 'tap';
import {
  type AuthoritySet,
  announcesChange,
  authoritySetCodec,
  changeIn,
  genesisSet,
  grandpaLogItem,
  nextSet,
  setIdAt,
  voterSetOf,
} from '../../consensus/grandpa/authorities.ts';
import { buildJustification, verifyJustification } from '../../consensus/grandpa/justification.ts';
import {
  blockId,
  decodeGossip,
  encodeGossip,
  equivocationProof,
  type GossipMessage,
  idBytes,
  type Justification,
  justificationCodec,
  signingPayload,
  voterId,
} from '../../consensus/grandpa/messages.ts';
import { decodeRecord, encodeRecord } from '../../consensus/grandpa/record.ts';
import type { VoterRecord } from '../../consensus/grandpa/voter.ts';
import { VoterSet } from '../../consensus/grandpa/voter-set.ts';
import type { BlockId, Commit, Precommit, Target } from '../../consensus/grandpa/votes.ts';
import { concatBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { type Header, headerHash } from '../../runtime/primitives/header.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { hashing, seeded, signatures, testKey } from './support.ts';

const real = JSON.parse(readFileSync(new URL('../vectors/grandpa-justification.json', import.meta.url), 'utf8')) as {
  round: number;
  setId: number;
  number: number;
  hash: string;
  justification: string;
  neighbour: { bytes: string; round: number; setId: number; finalized: number };
};
const keys = ['Alice', 'Bob', 'Charlie', 'Dave', 'Eve', 'Ferdie', 'Grace'].map(testKey);
const registry = new TypeRegistry();

/** A tree of real headers: a trunk of `length` blocks, and one fork two blocks long on its third. */
function headers(length: number): { trunk: Header[]; fork: Header[]; byId: Map<BlockId, Header> } {
  const make = (parent: Header | undefined, salt: number): Header => ({
    parentHash: parent === undefined ? asHash(new Uint8Array(32)) : headerHash(hashing, parent),
    number: (parent?.number ?? -1) + 1,
    stateRoot: asHash(new Uint8Array(32).fill(salt)),
    extrinsicsRoot: asHash(new Uint8Array(32)),
    digest: { logs: [] },
  });
  const trunk: Header[] = [];
  for (let i = 0; i < length; i++) trunk.push(make(trunk[i - 1], 1));
  const fork: Header[] = [];
  for (let i = 0; i < 2; i++) fork.push(make(fork[i - 1] ?? trunk[2], 2));
  return { trunk, fork, byId: new Map([...trunk, ...fork].map((each) => [idOf(each), each])) };
}
const idOf = (header: Header): BlockId => blockId(headerHash(hashing, header));
const targetOf = (header: Header): Target => ({ hash: idOf(header), number: header.number });

t.test('a justification of a live chain', async (t) => {
  const bytes = fromHex(real.justification);
  const justification = decode(justificationCodec, bytes);
  t.same(encode(justificationCodec, justification), bytes, 'encodes back to the same bytes');
  t.equal(justification.round, real.round);
  t.same(justification.commit.target, { hash: real.hash, number: real.number });
  const signers = justification.commit.precommits.map((each) => each.voter);
  t.equal(signers.length, 5);
  const context = { setId: real.setId, hashing, signatures };
  const voters = new VoterSet(signers.map((id) => [id, 1n] as const));
  t.same(verifyJustification(bytes, { ...context, voters }).target.number, real.number);
  const seven = new VoterSet([...signers, keys[0]!.id, keys[1]!.id].map((id) => [id, 1n] as const));
  t.equal(verifyJustification(bytes, { ...context, voters: seven }).round, real.round, 'five of seven are enough');
  const eight = new VoterSet([...signers, ...keys.slice(0, 3).map((each) => each.id)].map((id) => [id, 1n] as const));
  t.throws(() => verifyJustification(bytes, { ...context, voters: eight }), { code: 'NOT_FINAL' }, 'of eight not');
  t.throws(() => verifyJustification(bytes, { ...context, voters, setId: 1 }), { code: 'BAD_SIGNATURE' });

  const theirs = registry.createType('GrandpaJustification', bytes) as unknown as {
    round: { toNumber(): number };
    commit: { targetHash: { toHex(): string }; precommits: { id: { toHex(): string } }[] };
    toU8a(): Uint8Array;
  };
  t.equal(theirs.round.toNumber(), real.round);
  t.equal(theirs.commit.targetHash.toHex(), real.hash);
  t.same(
    theirs.commit.precommits.map((each) => each.id.toHex()),
    signers,
  );
  t.same(theirs.toU8a(), bytes);
});

t.test('gossip messages', async (t) => {
  const packet = decodeGossip(fromHex(real.neighbour.bytes));
  const { bytes: _, ...fields } = real.neighbour;
  t.same(packet, { type: 'neighbour', ...fields });
  t.equal(toHex(encodeGossip(packet)), real.neighbour.bytes);

  const target: Target = { hash: blockId(new Uint8Array(32).fill(7)), number: 0x01020304 };
  const vote = keys[0]!.vote('precommit', target, 5, 6);
  t.equal(
    toHex(signingPayload('precommit', target, 5, 6)),
    `0x01${'07'.repeat(32)}040302010500000000000000${'0600000000000000'}`,
    'what is signed: kind, hash, number, round, set',
  );
  t.ok(signatures.verifyEd25519(vote.signature, signingPayload('precommit', target, 5, 6), idBytes(vote.voter)));
  const said = encodeGossip({ type: 'vote', round: 5, setId: 6, vote });
  t.equal(
    toHex(said),
    `0x00${'0500000000000000'}${'0600000000000000'}01${'07'.repeat(32)}04030201${toHex(vote.signature).slice(2)}${vote.voter.slice(2)}`,
  );
  const commit: Commit = { target, precommits: [vote, keys[1]!.vote('precommit', target, 5, 6)] };
  const bytes = encodeGossip({ type: 'commit', round: 5, setId: 6, commit });
  t.equal(bytes.length, 1 + 8 + 8 + 36 + 1 + 2 * 36 + 1 + 2 * 96);
  const messages: GossipMessage[] = [
    { type: 'vote', round: 5, setId: 6, vote: keys[2]!.vote('propose', target, 5, 6) },
    { type: 'commit', round: 5, setId: 6, commit },
    { type: 'neighbour', round: 1, setId: 2, finalized: 3 },
    { type: 'catchUpRequest', round: 9, setId: 8 },
    {
      type: 'catchUp',
      setId: 6,
      catchUp: {
        round: 5,
        base: target,
        prevotes: [keys[0]!.vote('prevote', target, 5, 6)],
        precommits: commit.precommits,
      },
    },
  ];
  for (const message of messages) {
    const encoded = encodeGossip(message);
    t.same(decodeGossip(encoded), message, message.type);
    for (let cut = 0; cut < encoded.length; cut++) {
      t.throws(() => decodeGossip(encoded.subarray(0, cut)), { name: 'Error' }, `${message.type} cut at ${cut}`);
    }
  }
  const uneven = bytes.slice();
  uneven[1 + 8 + 8 + 36] = 4; // one precommit, two signatures
  t.throws(() => decodeGossip(uneven));
  t.throws(() => decodeGossip(fromHex('0x03ffffffffffffffff0000000000000000')), { code: 'OUT_OF_RANGE' });

  let refused = 0;
  const next = seeded(1);
  const sources = messages.map(encodeGossip);
  for (let i = 0; i < 20_000; i++) {
    const mutated = sources[i % sources.length]!.slice(0, next() < 0.3 ? Math.floor(next() * 300) : undefined);
    for (let j = 0; j < 3; j++) mutated[Math.floor(next() * next() * mutated.length)] = Math.floor(next() * 256);
    try {
      decodeGossip(mutated);
    } catch (error) {
      refused++;
      if ((error as { code?: string }).code === undefined) return t.fail(`an untyped error: ${error}`);
    }
  }
  t.ok(refused > 2_000, `${refused} of 20,000 mutated messages were refused`);
});

t.test('justifications with forks, equivocators and strangers', async (t) => {
  const { trunk, fork, byId } = headers(8);
  const voters = new VoterSet(keys.map((each) => [each.id, 1n] as const));
  const context = { setId: 3, voters, hashing, signatures };
  const [round, setId] = [12, 3];
  const at = (n: number): Target => targetOf(trunk[n]!);
  const precommit = (voter: number, target: Target): Precommit => keys[voter]!.vote('precommit', target, round, setId);
  const lookup = (id: BlockId): Header | undefined => byId.get(id);
  const justify = (target: Target, ...precommits: Precommit[]): Uint8Array =>
    buildJustification(round, { target, precommits }, lookup);

  const good = justify(
    at(2),
    precommit(0, at(2)),
    precommit(1, at(4)),
    precommit(2, at(6)),
    precommit(3, targetOf(fork[1]!)),
    precommit(4, at(2)),
  );
  t.same(verifyJustification(good, context, at(2)), { round, target: at(2) });
  t.equal(decode(justificationCodec, good).votesAncestries.length, 6, 'four on the trunk, two on the fork, none twice');
  const theirs = registry.createType('GrandpaJustification', good) as unknown as {
    toU8a(): Uint8Array;
    votesAncestries: { hash: { toHex(): string } }[];
  };
  t.same(theirs.toU8a(), good);
  for (const header of theirs.votesAncestries) t.ok(byId.has(header.hash.toHex() as BlockId));

  const code = (bytes: Uint8Array, target?: Target): string => {
    try {
      verifyJustification(bytes, context, target);
      return 'ok';
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  const changed = (change: (value: Justification) => void): Uint8Array => {
    const value = decode(justificationCodec, good);
    change(value);
    return encode(justificationCodec, value);
  };
  t.equal(code(good, at(3)), 'WRONG_TARGET');
  t.equal(code(good.subarray(1)), 'MALFORMED');
  t.equal(code(concatBytes(good, new Uint8Array(1))), 'MALFORMED');
  t.equal(
    code(
      changed((value) => {
        value.round = 13;
      }),
    ),
    'BAD_SIGNATURE',
    'another round',
  );
  t.equal(
    code(
      changed((value) => {
        value.votesAncestries.pop();
      }),
    ),
    'NOT_FINAL',
    'a header is missing',
  );
  t.equal(
    code(
      changed((value) => {
        value.votesAncestries.push(trunk[0]!);
      }),
    ),
    'BAD_ANCESTRY',
    'a header too many',
  );
  t.equal(
    code(
      changed((value) => {
        value.votesAncestries.push(value.votesAncestries[0]!);
      }),
    ),
    'BAD_ANCESTRY',
    'a header twice',
  );
  t.equal(
    code(
      changed((value) => {
        value.commit = { ...value.commit, precommits: value.commit.precommits.slice(0, 4) };
      }),
    ),
    'NOT_FINAL',
    'four of seven',
  );
  t.equal(
    code(justify(at(2), ...[0, 0, 1, 2, 3].map((voter) => precommit(voter, at(2))))),
    'NOT_FINAL',
    'one voter twice',
  );
  t.equal(
    code(
      justify(
        at(2),
        ...[0, 1, 2, 3].map((voter) => precommit(voter, at(2))),
        testKey('Mallory').vote('precommit', at(2), round, setId),
      ),
    ),
    'NOT_FINAL',
    'a stranger',
  );
  t.equal(
    code(justify(at(1), ...[0, 1, 2, 3, 4].map((voter) => precommit(voter, at(2))))),
    'NOT_FINAL',
    'below what is final',
  );
  const liar = { ...precommit(4, at(2)), signature: precommit(3, at(2)).signature };
  t.equal(code(justify(at(2), ...[0, 1, 2, 3].map((voter) => precommit(voter, at(2))), liar)), 'BAD_SIGNATURE');
  t.equal(
    code(
      justify(at(4), ...[0, 1, 2, 3].map((voter) => precommit(voter, at(4))), precommit(4, at(3)), precommit(4, at(2))),
    ),
    'ok',
    'an equivocator stands for every block',
  );
  t.throws(() => justify(at(4), precommit(0, at(4)), precommit(1, targetOf(fork[1]!))), { code: 'BAD_ANCESTRY' });
  t.throws(() => justify(at(4)), { code: 'NOT_FINAL' });
  const lied = { ...at(5), number: 6 };
  t.equal(
    code(
      encode(justificationCodec, {
        round,
        commit: {
          target: at(4),
          precommits: [...[0, 1, 2, 3].map((voter) => precommit(voter, at(4))), precommit(4, lied)],
        },
        votesAncestries: [trunk[5]!],
      }),
    ),
    'NOT_FINAL',
    "a height that is not the block's",
  );
});

t.test('evidence, digests and the authority set', async (t) => {
  const target = (fill: number): Target => ({ hash: blockId(new Uint8Array(32).fill(fill)), number: fill });
  const proof = {
    setId: 4,
    round: 9,
    phase: 'prevote' as const,
    voter: keys[0]!.id,
    first: keys[0]!.vote('prevote', target(1), 9, 4),
    second: keys[0]!.vote('prevote', target(2), 9, 4),
  };
  const encoded = encode(equivocationProof, proof);
  t.same(decode(equivocationProof, encoded), proof);
  const theirs = registry.createType('GrandpaEquivocationProof', encoded) as unknown as {
    toU8a(): Uint8Array;
    equivocation: {
      isPrevote: boolean;
      asPrevote: { roundNumber: { toNumber(): number }; identity: { toHex(): string } };
    };
  };
  t.same(theirs.toU8a(), encoded);
  t.ok(theirs.equivocation.isPrevote);
  t.equal(theirs.equivocation.asPrevote.roundNumber.toNumber(), 9);
  t.equal(theirs.equivocation.asPrevote.identity.toHex(), keys[0]!.id);

  const authorities = keys.map((each): [Uint8Array, bigint] => [each.publicKey, 1n]);
  const change = grandpaLogItem({ type: 'ScheduledChange', value: { nextAuthorities: authorities, delay: 0 } });
  t.equal(
    toHex((change as { value: [Uint8Array, Uint8Array] }).value[1]).slice(0, 8),
    `0x011c${toHex(keys[0]!.publicKey).slice(2, 4)}`,
  );
  const list = registry.createType(
    '(u8, Vec<NextAuthority>, u32)',
    (change as { value: [Uint8Array, Uint8Array] }).value[1],
  );
  t.equal((list as unknown as { length: number }[])[1]!.length, 7);
  t.same(changeIn({ digest: { logs: [change] } }), authorities);
  t.ok(announcesChange({ logs: [change] }));
  t.equal(changeIn({ digest: { logs: [grandpaLogItem({ type: 'OnDisabled', value: 3n })] } }), undefined);
  const bad =
    (...logs: Parameters<typeof grandpaLogItem>[0][]) =>
    () =>
      changeIn({ digest: { logs: logs.map(grandpaLogItem) } });
  const scheduled = { nextAuthorities: authorities, delay: 0 };
  t.throws(bad({ type: 'ScheduledChange', value: { ...scheduled, delay: 1 } }), { code: 'UNSUPPORTED' });
  t.throws(bad({ type: 'ForcedChange', value: [1, scheduled] }), { code: 'UNSUPPORTED' });
  t.throws(bad({ type: 'ScheduledChange', value: { ...scheduled, nextAuthorities: [] } }), { code: 'INVALID' });
  t.throws(bad({ type: 'ScheduledChange', value: scheduled }, { type: 'ScheduledChange', value: scheduled }), {
    code: 'INVALID',
  });
  t.throws(
    () =>
      changeIn({
        digest: { logs: [{ type: 'Consensus', value: [Buffer.from('FRNK') as never, new Uint8Array([1, 4])] }] },
      }),
    { code: 'INVALID' },
  );

  let set: AuthoritySet = genesisSet(authorities);
  set = nextSet(set, 10, authorities.slice(1));
  set = nextSet(set, 11, authorities.slice(2));
  set = nextSet(set, 25, authorities.slice(3));
  t.same(
    [0, 10, 11, 12, 25, 26, 1000].map((number) => setIdAt(set, number)),
    [0, 0, 1, 2, 2, 3, 3],
  );
  t.same(decode(authoritySetCodec, encode(authoritySetCodec, set)), set);
  t.equal(voterSetOf(set.authorities).size, 4);
});

t.test('the record in the journal', async (t) => {
  const target: Target = { hash: blockId(new Uint8Array(32).fill(7)), number: 77 };
  const record: VoterRecord = {
    setId: 2,
    voters: keys.slice(0, 4).map((each) => [voterId(each.publicKey), 1] as const),
    round: 8,
    base: target,
    own: [keys[0]!.vote('propose', target, 8, 2), keys[0]!.vote('prevote', target, 8, 2)],
    previous: {
      round: 7,
      base: target,
      prevotes: [keys[1]!.vote('prevote', target, 7, 2)],
      precommits: [keys[1]!.vote('precommit', target, 7, 2)],
    },
  };
  const bytes = encodeRecord(record);
  t.same(decodeRecord(bytes), record);
  t.same(decodeRecord(encodeRecord({ ...record, previous: undefined, own: [] })), {
    ...record,
    previous: undefined,
    own: [],
  });
  for (const wrong of [
    bytes.subarray(1),
    bytes.subarray(0, -1),
    new Uint8Array(),
    Uint8Array.of(9, ...bytes.subarray(1)),
  ]) {
    t.throws(() => decodeRecord(wrong), { code: 'CORRUPT_JOURNAL' });
  }
});
