/** Over real sockets: whoever votes twice or makes two blocks in a slot loses stake, and the rest goes on. */
import { Keyring } from '@polkadot/api';
import t from 'tap';
import { authorOf, slotDigest, slotOf, withSeal } from '../../consensus/aura/slots.ts';
import { blockId, encodeGossip, signingPayload, voterId } from '../../consensus/grandpa/messages.ts';
import { stateReader } from '../../node/attribution/state-reader.ts';
import { beaconInherent } from '../../node/chain/beacon-secrets.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { signWith } from '../../node/keystore/keys.ts';
import { MemoryKeystore } from '../../node/keystore/memory.ts';
import { derive } from '../../node/keystore/secret-uri.ts';
import type { PoolTransaction } from '../../node/pool/entry.ts';
import type { Network } from '../../p2p/network.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { headerHash } from '../../runtime/primitives/header.ts';
import { until } from '../support/until.ts';
import type { Member } from './nodes.ts';
import { authors, best, blocksOf, chainOf, connect, finalized, SLOT_MS, startValidators, URIS } from './validators.ts';

const OPEN = 10n ** 18n;
const hashing = createHashing();

t.test('whoever makes two blocks or votes twice is slashed and out of duty', { timeout: 240_000 }, async (test) => {
  const { members, close } = await startValidators(URIS, 100, 1);
  const [witness, other] = members as [Member, Member];
  const api = await connect(witness);
  test.teardown(async () => {
    await api.disconnect();
    await close();
  });
  await until('blocks are final', () => members.every((each) => finalized(each) >= 3), 90);
  const stakeOf = async (uri: string) => {
    const stash = new Keyring({ type: 'sr25519' }).addFromUri(`${uri}//stash`).address;
    const ledger = (await api.query.staking!.ledger!(stash)) as unknown as {
      unwrap(): { total: { toBigInt(): bigint } };
    };
    return ledger.unwrap().total.toBigInt();
  };
  const slashed = (uri: string, to: bigint) =>
    until(`the slash of ${uri} to ${to}`, async () => (await stakeOf(uri)) === to);

  // Charlie votes a second time in a round in which all count votes.
  const charlie = derive('//Charlie', 'ed25519');
  const early = blocksOf(witness).hashOf(1)!;
  const forge = (round: number) => {
    const target = { hash: blockId(early), number: 1 };
    const signature = signWith(charlie, signingPayload('prevote', target, round, 0), hashing);
    const vote = { kind: 'prevote', target, voter: voterId(charlie.publicKey), signature } as const;
    return encodeGossip({ type: 'vote', round, setId: 0, vote });
  };
  const full = 1_000_000n * OPEN;
  const once = full - (full * 5_625n) / 10_000n;
  interface RoundState {
    readonly round: { toNumber(): number };
    readonly prevotes: { readonly missing: { readonly size: number } };
  }
  for (let tries = 0; tries < 500 && (await stakeOf('//Charlie')) === full; tries++) {
    const { best: now } = (await api.rpc.grandpa.roundState()) as unknown as { best: RoundState };
    // A first vote for a block below the round's base would not count; gossip tells the same message once only.
    if (now.prevotes.missing.size === 0) {
      (other.node.network as Network).grandpa.broadcast(forge(now.round.toNumber()), 'vote');
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await slashed('//Charlie', once);

  // Dave makes a second block for the slot of his last one, with a transaction more.
  const dave = derive('//Dave', 'sr25519');
  const keystore = new MemoryKeystore(hashing);
  for (const type of ['aura', 'gran']) keystore.hold(type, '//Dave');
  const signatures = await createSignatures();
  const chain = chainOf(witness);
  const eve = new Keyring({ type: 'sr25519' }).addFromUri('//Eve');
  const signed = await api.tx.system!.remark!('0x1234').signAsync(eve, { nonce: 0, era: 0 });
  const twin = async () => {
    for (let number = best(witness).number; number > 1; number--) {
      const header = blocksOf(witness).header(blocksOf(witness).hashOf(number)!)!;
      const parent = { hash: header.parentHash, number: number - 1 };
      const slot = slotOf(header)!;
      if (!equalBytes(authorOf(slot, chain.auraAuthorities(parent)!)!, dave.publicKey)) continue;
      const rest = [{ hash: hashing.blake2_256(signed.toU8a(true)), extrinsic: signed.toU8a(true) } as PoolTransaction];
      const only = { next: () => rest.pop(), markInvalid: () => {} };
      const { genesisHash } = blocksOf(witness).info();
      const state = stateReader(chain.at(parent.hash)!, hashing, signatures);
      const proposal = await chain.propose(
        {
          parent,
          slot,
          preRuntime: slotDigest(slot),
          timestamp: slot * SLOT_MS,
          // The same secret as in its first block: it is told whatever else is in the block.
          inherents: beaconInherent({ keystore, hashing, genesisHash }, state, dave.publicKey),
          deadline: Number.POSITIVE_INFINITY,
          signal: new AbortController().signal,
        },
        only as never,
        () => {},
      );
      test.equal(proposal.extrinsics.length, 3);
      const seal = signWith(dave, headerHash(hashing, proposal.header), hashing);
      return { header: withSeal(proposal.header, seal), extrinsics: [...proposal.extrinsics] };
    }
    return undefined;
  };
  // Below the last final block it would be too late for it.
  const result = await (async () => {
    for (let tries = 0; ; tries++) {
      const block = await twin();
      const made = block && (await chain.import(block, { origin: 'gossip' }));
      if (made?.type === 'imported' || tries > 600) return made;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  test.equal(result?.type, 'imported', 'a valid block, on a fork');
  await slashed('//Dave', once);
  const heard = (message: string) => witness.warnings.some((each) => each.startsWith(message));
  test.ok(heard('an author made two blocks in one slot'));
  test.ok(heard('a voter voted twice'));

  // One of four may be out of duty at a time: Charlie was first. Finality goes on, without his blocks.
  const disabled = (await api.query.session!.disabledValidators!()) as unknown as { length: number };
  test.equal(disabled.length, 1);
  const now = best(witness).number;
  await until('finality goes on', () => members.every((each) => finalized(each) >= now + 6), 90);
  const seen = authors(other, now + 1);
  test.notOk(seen.has(toHex(derive('//Charlie', 'sr25519').publicKey)));
  test.ok(seen.has(toHex(dave.publicKey)));
  const validators = (await api.query.staking!.validators!.keys()) as unknown as unknown[];
  test.equal(validators.length, 2, 'both are chilled');
});
