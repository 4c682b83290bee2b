/**
 * Beacon: chance that no author chooses. Every author has promised the hash of a secret in its last block; in its next
 * block it must tell that secret and promise another one, and the secret is stirred into the seed. Since the secret was
 * fixed before anything that it decides was known, an author cannot try seals or transactions until the seed suits it:
 * all that it can do is not to make its block at all. Whoever draws something from the seed therefore draws in many
 * blocks of different authors, or long after what is drawn about was fixed (see `audits.ts`).
 *
 * Why not something else: signatures of sr25519 and ed25519 are not unique, so their hash (that of a seal, or those of a
 * GRANDPA justification, of which its maker also picks two thirds) can be tried until it suits; a VRF gives an author the
 * same one bit as this does, and needs a host function that the embedded schnorrkel does not have; commitments of whole
 * epochs let the last one to reveal choose among 2^n outcomes for n reveals that it owns.
 */
import { cost, ensure, ensureNone, error, fail } from '../../framework/dispatch.ts';
import { apiMethod, call, pallet, runtimeApi } from '../../framework/pallet.ts';
import { identity, map, optionalValue, storage, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { canonical, hashOf, part } from '../../primitives/attribution/canonical.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { InvalidBlock } from '../../primitives/invalid-block.ts';
import { bool, decode, type Infer, option, struct, u32, u64 } from '../../primitives/scale/codec.ts';
import { type Hash, hash, ZERO_HASH } from '../../primitives/types.ts';
import { authorIndex, authorities, authorityId } from '../standard/aura/authorities.ts';
import * as system from '../standard/system.ts';

/** Of the inherent: eight bytes. */
export const BEACON_INHERENT = 'olbeacon';

/** `count`: secrets that the key has told, so that whoever makes the secrets knows which one is next. */
export const promise = part('BeaconPromise', struct({ commitment: hash, count: u64 }));
export type BeaconPromise = Infer<typeof promise>;

/** What an author puts into its block: the promised secret (none with its first promise), and the next promise. */
export const disclosure = part('BeaconDisclosure', struct({ secret: option(hash), next: hash }));

/** What is promised of a secret. */
const secretOf = canonical('beacon-secret/1', 'BeaconSecret', struct({ secret: hash }));
const stirred = canonical('beacon-seed/1', 'BeaconSeed', struct({ before: hash, secret: hash }));
const drawn = canonical('beacon-draw/1', 'BeaconDraw', struct({ seed: hash, block: u32, subject: hash, purpose: u32 }));

export const promiseOf = (hashing: Parameters<typeof hashOf>[0], secret: Hash): Hash =>
  hashOf(hashing, secretOf, { secret });

export const store = storage('Beacon', {
  Seed: value(hash, ZERO_HASH, 'All secrets that were told so far, stirred together.'),
  Promises: map(identity(authorityId), promise, 'What each Aura key must tell in its next block.'),
  Turn: optionalValue(
    struct({ key: authorityId, told: bool }),
    'The Aura key that this block is made with, and whether its secret has been told. Only within a block.',
  ),
});

export const errors = {
  NotNow: error(0, 'A block has one author, who tells one secret.'),
  Unpromised: error(1, 'A secret is told in the block after its promise, and only there.'),
  OtherSecret: error(2, 'The secret is not the one that was promised.'),
};

/**
 * 32 bytes that follow from the seed as it stands, the block, and what is drawn about. In `on_initialize`, the last secret
 * in it is that of the author of the block before.
 */
export const draw = (host: Host, subject: Hash, purpose: number): DataView => {
  const made = hashOf(host, drawn, {
    seed: store.Seed.get(host),
    block: system.blockNumber(host),
    subject,
    purpose,
  });
  return new DataView(made.buffer, made.byteOffset, 32);
};

/** What the Aura key must tell in its next block. */
export const promiseFor = (host: Host, key: Uint8Array): BeaconPromise | undefined => store.Promises.get(host, key);

export const beacon = pallet({
  name: 'Beacon',
  index: 28,
  docs: 'Chance that no author chooses.',
  storage: store,
  errors,
  calls: {
    tell: call({
      index: 0,
      args: { disclosure },
      weight: cost(20_000_000n, 4, 3),
      class: 'Mandatory',
      docs: 'The author’s secret, which it promised in its last block, and its next promise. An inherent.',
      run({ origin, host }, { disclosure: { secret, next } }) {
        ensureNone(origin);
        const turn = store.Turn.get(host);
        if (turn === undefined || turn.told) return fail(errors.NotNow);
        const before = store.Promises.get(host, turn.key);
        ensure((before === undefined) === (secret === undefined), errors.Unpromised);
        if (before !== undefined && secret !== undefined) {
          ensure(equalBytes(promiseOf(host, secret), before.commitment), errors.OtherSecret);
          store.Seed.put(host, hashOf(host, stirred, { before: store.Seed.get(host), secret }));
        }
        store.Promises.insert(host, turn.key, { commitment: next, count: (before?.count ?? 0n) + 1n });
        store.Turn.put(host, { ...turn, told: true });
        return undefined;
      },
    }),
  },
  inherent: {
    identifier: BEACON_INHERENT,
    call: 'tell',
    required: false,
    create: (_env, data) => ({ type: 'tell', value: { disclosure: decode(disclosure, data) } }),
    check: () => undefined,
  },
  hooks: {
    judgesBlocks: true,
    // Before the session changes hands: the slot's author was chosen among the authorities that the parent left.
    onInitialize({ host }) {
      const key = authorities(host)[authorIndex(host) ?? 0];
      if (key !== undefined) store.Turn.put(host, { key, told: false });
      return cost(6_000_000n, 3, 2);
    },
    onFinalize({ host }) {
      const turn = store.Turn.take(host);
      if (turn !== undefined && !turn.told && store.Promises.has(host, turn.key)) {
        throw new InvalidBlock('BAD_BEACON', 'the author has not told the secret that it promised');
      }
    },
  },
  apis: [
    runtimeApi({
      name: 'BeaconApi',
      version: 1,
      docs: 'What authors must tell.',
      methods: {
        promise: apiMethod({
          inputs: { key: authorityId },
          output: option(promise),
          docs: 'What the Aura key must tell in its next block, and how many secrets it has told.',
          run: ({ host }, { key }) => promiseFor(host, key),
        }),
      },
    }),
  ],
});
