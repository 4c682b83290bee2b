/** Blocks that warp sync leapt over, fetched backwards in the background while the node already follows the chain. */

import type { WarpImport } from '../../consensus/grandpa/warp-import.ts';
import type { Clock, Log } from '../../node/ports/machine.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { type BlockRequest, decodeBlockResponse } from '../protocols/sync.ts';
import { duration } from './duration.ts';
import { pause } from './pause.ts';

export interface HistoryPorts {
  readonly chain: Pick<WarpImport, 'missing' | 'fill'>;
  readonly peers: () => readonly { readonly id: PeerId; readonly best: number }[];
  readonly request: (peer: PeerId, request: BlockRequest, signal: AbortSignal) => Promise<Uint8Array>;
  /** Nearer blocks come first. */
  readonly isMajorSyncing: () => boolean;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  readonly clock: Clock;
  readonly log: Log;
}
const FIELDS = { header: true, body: true, justifications: false };
const AT_ONCE = 64;
const RETRY_MS = 2_000;
const PROGRESS_MS = 10_000;

export async function fetchHistory(ports: HistoryPorts, signal: AbortSignal): Promise<void> {
  const { chain, request, charge, clock, log } = ports;
  let turn = 0;
  let told = { at: clock.monotonic(), number: chain.missing()?.number ?? 0 };
  while (!signal.aborted) {
    const wanted = chain.missing();
    if (wanted === undefined) return;
    const able = ports.peers().filter(({ best }) => best >= wanted.number);
    const peer = able[turn++ % Math.max(1, able.length)]?.id;
    if (peer === undefined || ports.isMajorSyncing()) {
      await pause(clock, RETRY_MS, signal);
      continue;
    }
    let flaw: string | undefined;
    try {
      const ask: BlockRequest = {
        fields: FIELDS,
        from: { type: 'hash', hash: wanted.hash },
        direction: 'descending',
        max: Math.min(AT_ONCE, wanted.number),
      };
      const blocks = decodeBlockResponse(await request(peer, ask, signal), FIELDS, ask.max);
      const whole = blocks.flatMap(({ header, body }) =>
        header === undefined || body === undefined ? [] : [{ header, extrinsics: [...body] }],
      );
      // Nobody has to keep the past.
      if (whole.length === 0) charge(peer, FEE.refused, 'it does not have the blocks of the past');
      else {
        const result = await chain.fill(whole);
        if (result.type === 'invalid') flaw = result.reason;
        else {
          const left = chain.missing();
          const now = clock.monotonic();
          if (left === undefined) log('info', 'all blocks of the past are here');
          else if (now - told.at >= PROGRESS_MS) {
            const rate = ((told.number - left.number) * 1_000) / (now - told.at);
            log(
              'info',
              `blocks of the past: ${rate.toFixed(1)} a second, down to #${left.number}, ${duration(left.number / rate)} left`,
            );
            told = { at: now, number: left.number };
          }
          continue;
        }
      }
    } catch (problem) {
      if (problem instanceof NetworkError && (problem.code === 'TIMEOUT' || problem.code === 'CLOSED')) {
        charge(peer, FEE.slowResponse, problem.message);
      } else if (problem instanceof NetworkError || problem instanceof ScaleError) flaw = problem.message;
      else log('error', 'blocks of the past could not be taken in', { problem: String(problem) });
    }
    if (flaw !== undefined) charge(peer, FEE.badResponse, `blocks of the past: ${flaw}`);
    await pause(clock, RETRY_MS, signal);
  }
}
