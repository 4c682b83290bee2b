/** The crowd of {@link import('./hostile.ts')}, on a thread of its own: it may not take time from those whom it attacks. */
import { parentPort, workerData } from 'node:worker_threads';
import type { VoterId } from '../../consensus/grandpa/votes.ts';
import { uniforms } from '../../gpu-worker/attribution/seeded.ts';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { type Header, header as headerCodec } from '../../runtime/primitives/header.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { ATTACKS, Identity, pause } from './attacks.ts';
import { detour, portOf, through } from './detour.ts';

/** What a crowd is told at its beginning. */
export interface CrowdOptions {
  readonly address: string;
  readonly peerId: string;
  readonly genesisHash: string;
  readonly voters: readonly string[];
  readonly head: Uint8Array;
  readonly seed: bigint;
  /** Identities at work at the same time. */
  readonly size: number;
  /** Of the attacks; default: all, in turn. */
  readonly only: string | undefined;
}

/** To the crowd. */
export type Order =
  | { readonly type: 'head'; readonly header: Uint8Array }
  | { readonly type: 'isBanned'; readonly id: string; readonly banned: boolean }
  | { readonly type: 'stop' };

/** From the crowd. */
export type News =
  | { readonly type: 'ask'; readonly id: string }
  | {
      readonly type: 'attacked';
      readonly name: string;
      readonly sent: number;
      /** Undefined where no ban was due. */
      readonly banned: boolean | undefined;
    }
  /** It was not let in, or not heard. */
  | { readonly type: 'refused'; readonly name: string }
  | { readonly type: 'gone' };

/** How long a ban may take after the last offence: what was sent has to be read first. */
const PATIENCE_MS = 60_000;

const port = parentPort!;
const options = workerData as CrowdOptions;
let best: Header = decode(headerCodec, options.head);
let stopped = false;
const questions = new Map<string, (banned: boolean) => void>();
port.on('message', (order: Order) => {
  if (order.type === 'head') best = decode(headerCodec, order.header);
  else if (order.type === 'stop') stopped = true;
  else {
    questions.get(order.id)?.(order.banned);
    questions.delete(order.id);
  }
});
const tell = (news: News): void => port.postMessage(news);
const isBanned = (id: string): Promise<boolean> =>
  new Promise((resolve) => {
    questions.set(id, resolve);
    tell({ type: 'ask', id });
  });

const victim = {
  address: options.address,
  peerId: options.peerId,
  genesisHash: asHash(fromHex(options.genesisHash)),
  voters: options.voters as readonly VoterId[],
  best: () => best,
};
const next = uniforms(options.seed);
const names = Object.keys(ATTACKS).filter((name) => options.only === undefined || name === options.only);
let turn = 0;

/** A range that did too much harm is left out for a while, so each comes from another one. */
const somewhere = (): string => `127.${1 + Math.floor(next() * 250)}.${Math.floor(next() * 250)}.7`;

async function attack(name: string): Promise<void> {
  const { offence, run } = ATTACKS[name]!;
  const way = await detour(portOf(victim.address), somewhere());
  const who = await Identity.connect({ ...victim, address: through(victim.address, way) }, next).catch((problem) => {
    way.close();
    throw problem;
  });
  try {
    const made = await run(who).then(
      () => true,
      () => false,
    );
    let banned = await isBanned(who.id);
    // Whoever was thrown out in the middle of it was heard; whoever was turned away was not.
    if (!made && !banned) {
      tell({ type: 'refused', name });
      return;
    }
    const end = performance.now() + PATIENCE_MS;
    while (offence && !banned && performance.now() < end) {
      await pause(50);
      banned = await isBanned(who.id);
    }
    tell({ type: 'attacked', name, sent: who.sent, banned: offence ? banned : undefined });
  } finally {
    await who.host.stop();
    way.close();
  }
}

async function attacker(): Promise<void> {
  while (!stopped) {
    const name = names[turn++ % names.length]!;
    try {
      await attack(name);
    } catch {
      // The address range is full.
      tell({ type: 'refused', name });
      await pause(200);
    }
  }
}

await Promise.all(Array.from({ length: options.size }, attacker));
tell({ type: 'gone' });
port.close();
