/** Who writes and what is final: the author of blocks, the GRANDPA voter, reports of equivocations. */
import { randomInt } from 'node:crypto';
import { authorOf } from '../../consensus/aura/slots.ts';
import { AuraWorker, type Proposal, type ProposalRequest } from '../../consensus/aura/worker.ts';
import { GrandpaVoter, noNetwork } from '../../consensus/grandpa/driver.ts';
import type { Network } from '../../p2p/network.ts';
import { stateReader } from '../attribution/state-reader.ts';
import { journalIn } from '../base-path.ts';
import { beaconInherent } from '../chain/beacon-secrets.ts';
import type { BlockImport, Service } from '../ports/chain.ts';
import { EquivocationReporter } from '../services/equivocation-reporter.ts';
import type { ChainPart } from './chain-part.ts';
import type { Ground } from './ground.ts';

export interface ConsensusPart {
  readonly voter: GrandpaVoter;
  readonly services: readonly Service[];
}

/** `measured` wraps the making of a block, for metrics. */
export function openConsensus(
  { options, hashing, signatures, clock }: Ground,
  { database, chain, blocks, pool, keystore, validator }: ChainPart,
  network: Network | undefined,
  importer: BlockImport,
  measured: (make: () => Promise<Proposal>) => Promise<Proposal>,
): ConsensusPart {
  const { spec, log } = options;
  const journal = journalIn(database);
  const isMajorSyncing = () => network?.isMajorSyncing() ?? false;
  const equivocations = new EquivocationReporter({ chain, pool, keystore, isMajorSyncing, log });
  const voter = new GrandpaVoter(
    {
      blocks,
      events: blocks,
      importer,
      authoritySet: chain.authoritySet,
      keystore,
      signatures,
      journal,
      network: network?.grandpa ?? noNetwork,
      reportEquivocation: (votes, encoded) => equivocations.reportVotes(votes, encoded),
      clock,
      random: () => randomInt(2 ** 32) / 2 ** 32,
      log,
    },
    { voting: validator },
  );
  const voting: Service = {
    name: voter.name,
    async run(until) {
      // The block that a voter begins on must not change under it.
      await network?.grounded;
      network?.attachVoter(voter);
      await voter.run(until);
    },
  };
  if (!validator) return { voter, services: [voting] };
  const secrets = ({ parent, slot }: ProposalRequest) => {
    const state = chain.at(parent.hash);
    const key = authorOf(slot, chain.auraAuthorities(parent) ?? []);
    if (state === undefined || key === undefined) return {};
    const { genesisHash } = blocks.info();
    return beaconInherent({ keystore, hashing, genesisHash }, stateReader(state, hashing, signatures), key);
  };
  const author = new AuraWorker(
    {
      best: () => {
        const { best } = blocks.info();
        return { ref: best, header: blocks.header(best.hash)! };
      },
      authorities: (parent) => chain.auraAuthorities(parent),
      propose: (request) =>
        measured(() =>
          chain.propose({ ...request, inherents: secrets(request) }, pool.bestFirst(), (hash) => pool.remove([hash])),
        ),
      importer,
      isMajorSyncing,
      keystore,
      hashing,
      journal,
      clock,
      log,
    },
    { slotMs: chain.slotMs, forceAuthoring: spec.chainType === 'Development' },
  );
  return { voter, services: [author, equivocations, voting] };
}
