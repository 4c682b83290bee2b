/** The watcher of a validator: it asks this node as anybody would, and signs with a key of its own. */

import { blake2b } from '@noble/hashes/blake2.js';
import { Ledger } from '../../rpc/client/ledger.ts';
import type { RpcAddress } from '../../rpc/server/server.ts';
import { encodeSs58 } from '../../runtime/primitives/ss58.ts';
import { asAccountId } from '../../runtime/primitives/types.ts';
import type { Service } from '../ports/chain.ts';
import { Watcher } from '../services/watcher.ts';
import { type ChainPart, WATCHER_KEY } from './chain-part.ts';
import type { Ground } from './ground.ts';

const OPEN_PREFIX = 42;

/** Undefined where this node does not watch: only validators do unless they are told otherwise. */
export function openWatcher(
  { options, hashing, signatures }: Ground,
  { keystore, validator }: ChainPart,
  rpc: RpcAddress,
): Service | undefined {
  const { log, watcher = validator } = options;
  if (!watcher) return undefined;
  const publicKey = keystore.publicKeys(WATCHER_KEY)[0] ?? keystore.generate(WATCHER_KEY);
  const account = asAccountId(publicKey);
  return {
    name: 'watcher',
    async run(signal) {
      const ledger = await Ledger.connect(rpc.ws, { reconnect: true, hashing });
      const end = (): void => ledger.close();
      signal.addEventListener('abort', end, { once: true });
      const address = encodeSs58(blake2b, { prefix: OPEN_PREFIX, key: account });
      log('info', `the watcher shows faults as ${address}: it needs OPEN for fees, and is paid for what it finds`);
      const sign = (message: Uint8Array): Uint8Array => {
        const made = keystore.sign(WATCHER_KEY, publicKey, message);
        if (made === undefined) throw new Error('the key of the watcher is gone from the keystore');
        return made;
      };
      const signer = { scheme: 'sr25519' as const, publicKey, account, sign };
      await new Watcher({ ledger, signer, hashing, signatures, log }).run(signal);
      signal.removeEventListener('abort', end);
      ledger.close();
    },
  };
}
