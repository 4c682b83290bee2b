/** Availability: validators' attestations of the files that they hold, taken once, in order, and only while they are validators. */
import t from 'tap';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { signWith } from '../../../node/keystore/keys.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import { encodeBare } from '../../../runtime/executive/extrinsic.ts';
import { NONE } from '../../../runtime/framework/dispatch.ts';
import * as blobs from '../../../runtime/pallets/ledger/blobs.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import {
  type Availability,
  availability,
  MAX_ATTESTED_CLAIMS,
} from '../../../runtime/primitives/attribution/availability.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import { type BaseModelId, type ClaimId, claimId } from '../../../runtime/primitives/attribution/ids.ts';
import { decode, encode, fixedBytes, struct, vec } from '../../../runtime/primitives/scale/codec.ts';
import { accountId, asHash, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { BOB, createWorld, genesisOf, make, person, type World } from './world.ts';

const hashing = createHashing();
const SESSION = 20;
const validators = ['Alice', 'Bob', 'Charlie'].map((name, i) => ({
  account: person(11 + i),
  voter: derive(`//${name}`, 'ed25519'),
  aura: derive(`//${name}`, 'sr25519').publicKey,
}));
const file = (fill: number) => asHash(new Uint8Array(32).fill(fill));
/** The first claim has the id 0. */
const claim = (n: number) => BigInt(n - 1) as ClaimId;

async function world(): Promise<World> {
  const of = await createWorld(
    genesisOf({
      aura: { authorities: [], slotDurationMs: 3_000 },
      grandpa: { authorities: [] },
      session: validators.map(({ account, aura, voter }) => ({ account, aura, grandpa: voter.publicKey })),
      sessionLength: SESSION,
    }),
  );
  const env = of.env();
  for (const fill of [1, 2, 3]) {
    blobs.commit(env, {
      depositor: BOB,
      purpose: { type: 'BaseModel', value: fill as BaseModelId },
      files: [{ hash: file(fill), bytes: 100n }],
    });
  }
  env.flush();
  of.next();
  return of;
}

function attestation(of: World, validator: number, change: Partial<Availability> = {}, by = validator) {
  const value: Availability = {
    chain: system.blockHash(of.host, 0),
    session: 0,
    validator,
    sequence: 0,
    held: [],
    lost: [],
    ...change,
  };
  const signature = signWith(validators[by]!.voter, hashOf(hashing, availability, value), hashing);
  return make('Blobs', 'attest', { attestation: value, signature });
}

/** What a block makes of it: the reason for which it is refused, or undefined. */
function apply(of: World, call: ReturnType<typeof attestation>): string | undefined {
  const applied = of.runtime.executive.applyExtrinsic(of.host, encodeBare(of.assembly.call, call));
  if (!applied.ok) return applied.error.value.type;
  return applied.outcome.ok ? undefined : of.assembly.describeError(applied.outcome.error);
}
const holders = (of: World, fill: number) => blobs.holdersOf(of.host, claim(fill)).map((each) => each[0]);

t.test('held, and lost again', async (test) => {
  const of = await world();
  test.teardown(of.close);
  test.same(holders(of, 1), []);
  test.equal(apply(of, attestation(of, 1, { held: [claim(1), claim(2), claim(2), claim(9)] })), undefined);
  test.same(of.events().at(-2), {
    name: 'Blobs.Attested',
    value: { validator: validators[1]!.account, held: 2, lost: 0 },
  });
  test.equal(apply(of, attestation(of, 0, { held: [claim(1)] })), undefined);
  test.same([holders(of, 1), holders(of, 2), holders(of, 3), holders(of, 9)], [[12, 11], [12], [], []]);

  const input = encode(vec(claimId), [claim(2), claim(1), claim(9)]);
  const answer = decode(blobs.availabilityReport, of.runtime.call(of.host, 'BlobsApi_availability', input));
  test.same(answer, { validators: 3, holders: [1, 2, 0] });
  test.same(
    of.runtime.call(of.host, 'BlobsApi_holders', encode(claimId, claim(2))),
    encode(vec(accountId), [person(12)]),
  );

  of.next(of.number() + 3);
  test.equal(apply(of, attestation(of, 1, { sequence: 1, held: [claim(3)], lost: [claim(1), claim(3)] })), undefined);
  test.same([holders(of, 1), holders(of, 2), holders(of, 3)], [[11], [12], [12]]);
  const env = of.env();
  blobs.release(env, claim(3));
  env.flush();
  test.same(holders(of, 3), [], 'what is dropped is nobody’s to hold');
  test.ok(of.balanced());
});

t.test('what is not taken leaves no trace', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const before = of.root();
  const held = [claim(1)];
  const refused = (call: ReturnType<typeof attestation>, why: string, what: string) => {
    test.equal(apply(of, call), why, what);
    test.equal(of.root(), before, 'and nothing is changed');
  };
  refused(attestation(of, 0, { held }, 1), 'BadProof', 'another’s signature');
  refused(attestation(of, 3, { held }, 0), 'BadProof', 'nobody');
  refused(attestation(of, 0, { held, session: 1 }), 'BadProof', 'another session');
  refused(attestation(of, 0, { held, chain: file(7) }), 'BadProof', 'another chain');
  refused(attestation(of, 0, { held, sequence: 1 }), 'Future', 'out of turn');
  refused(attestation(of, 0, { held: [claim(9)], lost: [claim(1)] }), 'Stale', 'nothing new');
  test.equal(of.dispatch(attestation(of, 0, { held }), person(11)).error, 'BadOrigin');
  const many = Array.from({ length: MAX_ATTESTED_CLAIMS + 1 }, (_, i) => claim(i));
  test.throws(() => encodeBare(of.assembly.call, attestation(of, 0, { held: many })), { code: 'TOO_LONG' });

  const first = attestation(of, 0, { held });
  test.equal(apply(of, first), undefined);
  test.equal(apply(of, first), 'Stale', 'the same again');
  test.equal(of.dispatch(first, NONE).error, 'Blobs.WrongSequence');
  test.equal(apply(of, attestation(of, 0, { sequence: 1, held: [claim(2)] })), 'Future', 'too soon: they are free');
  of.next(of.number() + 3);
  test.equal(apply(of, attestation(of, 0, { sequence: 1, held: [claim(2)] })), undefined);
});

t.test('sessions: counting begins anew, and those who left do not count', async (test) => {
  const of = await world();
  test.teardown(of.close);
  test.equal(apply(of, attestation(of, 2, { held: [claim(1)] })), undefined);
  const old = attestation(of, 2, { lost: [claim(1)] });
  of.next(SESSION + 1);
  test.equal(apply(of, old), 'BadProof', 'of the session before');
  test.same(holders(of, 1), [13]);
  test.equal(apply(of, attestation(of, 2, { session: 1, held: [claim(2)] })), undefined);
  // Charlie gives his keys up, and is out two sessions later.
  test.ok(of.dispatch(make('Session', 'purge_keys'), validators[2]!.account).outcome.ok);
  of.next(3 * SESSION + 1);
  test.same([holders(of, 1), holders(of, 2)], [[], []]);
  test.equal(apply(of, attestation(of, 0, { session: 3, held: [claim(1)] })), undefined);
  test.same(blobs.isHolder(of.host, claim(1), validators[2]!.account), false, 'his place is free');
  test.same(blobs.isHolder(of.host, claim(2), validators[2]!.account), true, 'until somebody attests it');
});

t.test('in the pool of the validator’s own node, and nowhere else', async (test) => {
  const of = await world();
  test.teardown(of.close);
  of.next();
  of.finish();
  const bare = encodeBare(of.assembly.call, attestation(of, 1, { held: [claim(1)] }));
  const validity = (type: 'Local' | 'External') =>
    of.runtime.executive.validateTransaction(of.host, { type }, bare, ZERO_HASH);
  const answer = validity('Local');
  test.match(answer, { ok: true, value: { propagate: false, requires: [], longevity: 64n } });
  test.equal(answer.ok && answer.value.provides.length, 1);
  test.match(validity('External'), { ok: false, error: { value: { type: 'Call' } } });
  const made: Uint8Array[] = [];
  const host = { ...of.host, submitTransaction: (extrinsic: Uint8Array) => made.push(extrinsic) > 0 };
  const { value } = attestation(of, 1, { held: [claim(1)] }).value as {
    readonly value: { readonly attestation: Availability; readonly signature: Uint8Array };
  };
  const input = encode(struct({ attestation: availability, signature: fixedBytes(64) }), value);
  const method = 'BlobsApi_submit_attestation_unsigned_extrinsic';
  test.same(of.runtime.call(host, method, input), Uint8Array.of(1));
  test.same(made, [bare]);
  test.same(of.runtime.call(of.host, method, input), Uint8Array.of(0), 'false where there is no pool');
});
