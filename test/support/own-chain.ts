/** A chain without a node around it: `//Alice` authors and finalizes it, at any time that a test wants. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { slotDigest, withSeal } from '../../consensus/aura/slots.ts';
import { buildJustification } from '../../consensus/grandpa/justification.ts';
import { blockId, idBytes, signingPayload, voterId } from '../../consensus/grandpa/messages.ts';
import { Chain } from '../../node/chain/chain.ts';
import { newRuntime } from '../../node/chain/genesis.ts';
import type { ChainSpec } from '../../node/chain-spec/chain-spec.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures, SignatureCache } from '../../node/crypto/signatures.ts';
import { Verifier } from '../../node/crypto/verifier.ts';
import { Database } from '../../node/database/database.ts';
import { MemoryKeystore } from '../../node/keystore/memory.ts';
import type { BestFirst } from '../../node/pool/best-first.ts';
import { type Clock, systemClock } from '../../node/ports/machine.ts';
import { runtimeCode } from '../../node/wasm-builder/cache.ts';
import {
  type Block,
  GRANDPA_ENGINE,
  type Header,
  headerHash,
  type Justifications,
} from '../../runtime/primitives/header.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import type { Runtime } from '../../runtime/runtime.ts';

export interface OwnChain {
  readonly chain: Chain;
  readonly database: Database;
  /** A sealed block on top of the best one, with these extrinsics (all must be valid), not imported yet. */
  propose(slot: number, extrinsics?: readonly Uint8Array[]): Promise<Block>;
  /** Seals a header that has no seal. */
  seal(header: Header): Header;
  /** The proof that all voters of `round` want this block final. */
  justify(header: Header, round: number): Justifications;
  close(): Promise<void>;
}

/** Extrinsics of a pool without a pool. */
function given(list: readonly Uint8Array[]): BestFirst {
  const hash = new Uint8Array(32) as Hash;
  let at = 0;
  return {
    next: () => (at < list.length ? { hash, extrinsic: list[at++] } : undefined),
    markInvalid() {},
  } as unknown as BestFirst;
}

const quiet = (): void => {};

/** Opens or begins the chain where a node with this base path has it. */
export async function openChain(
  spec: ChainSpec,
  basePath: string,
  clock: Clock = systemClock,
  runtime: Runtime = newRuntime(),
): Promise<OwnChain> {
  const directory = join(basePath, 'chains', spec.id);
  await mkdir(directory, { recursive: true });
  const hashing = createHashing();
  const signatures = new SignatureCache(await createSignatures());
  const database = await Database.open(join(directory, 'db'));
  const verifier = new Verifier({ signatures, hashing });
  const chain = await Chain.open(
    { database, runtime, hashing, signatures, verifier, clock, log: quiet },
    { pruning: 256, genesis: spec.genesis, code: await runtimeCode() },
  );
  const keystore = new MemoryKeystore(hashing);
  for (const type of ['aura', 'gran']) keystore.hold(type, '//Alice');
  const [author] = keystore.publicKeys('aura');
  const [voter] = keystore.publicKeys('gran');
  const { signal } = new AbortController();
  const seal = (header: Header): Header =>
    withSeal(header, keystore.sign('aura', author!, headerHash(hashing, header))!);
  return {
    chain,
    database,
    seal,
    async propose(slot, extrinsics = []) {
      await chain.preverify(extrinsics);
      const request = {
        parent: chain.blocks.info().best,
        slot,
        preRuntime: slotDigest(slot),
        timestamp: slot * chain.slotMs,
        deadline: Number.POSITIVE_INFINITY,
        signal,
      };
      const made = await chain.propose(request, given(extrinsics), () => {
        throw new Error('an extrinsic is not valid');
      });
      if (made.extrinsics.length !== extrinsics.length + 1) throw new Error('extrinsics were left out');
      return { header: seal(made.header), extrinsics: [...made.extrinsics] };
    },
    justify(header, round) {
      const target = { hash: blockId(headerHash(hashing, header)), number: header.number };
      const { setId } = chain.authoritySet();
      const signature = keystore.sign('gran', voter!, signingPayload('precommit', target, round, setId))!;
      const precommit = { kind: 'precommit', target, voter: voterId(voter!), signature } as const;
      const headerOf = (id: Parameters<typeof idBytes>[0]): Header | undefined =>
        chain.blocks.header(idBytes(id) as Hash);
      return [[GRANDPA_ENGINE, buildJustification(round, { target, precommits: [precommit] }, headerOf)]];
    },
    async close() {
      await verifier.close();
      await database.close();
    },
  };
}
