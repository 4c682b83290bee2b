/** Authorship: whose block this is (`pallet_authorship`). */
import { cost } from '../../framework/dispatch.ts';
import { pallet } from '../../framework/pallet.ts';
import { optionalValue, storage } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { InvalidBlock } from '../../primitives/invalid-block.ts';
import { type AccountId, accountId, asAccountId } from '../../primitives/types.ts';
import * as aura from './aura/authorities.ts';
import * as historical from './historical.ts';
import * as session from './session.ts';

export const store = storage('Authorship', {
  Author: optionalValue(accountId, 'Author of current block.'),
});

/**
 * The validator whose turn it is (`FindAccountFromAuthorIndex`): whoever works in this session with the key of that index,
 * whatever is registered now for later ones. Authorities that no session ever chose are the accounts of their keys.
 */
function find(host: Host): AccountId | undefined {
  const index = aura.authorIndex(host);
  const key = index === undefined ? undefined : aura.authorities(host)[index];
  if (key === undefined) return undefined;
  const working = historical.workingKeys(host).find(([, keys]) => equalBytes(keys.aura, key));
  return working?.[0] ?? asAccountId(key);
}

/** The author of the current block, from its initialization to the end of its finalization. */
export const author = (host: Host): AccountId | undefined => store.Author.get(host);

export const authorship = pallet({
  name: 'Authorship',
  index: 31,
  docs: 'The author of the current block.',
  storage: store,
  hooks: {
    judgesBlocks: true,
    // Before the session changes hands: the slot's author was chosen among the authorities that the parent left.
    onInitialize({ host }) {
      const found = find(host);
      if (found !== undefined) {
        if (session.isDisabled(host, found)) throw new InvalidBlock('AUTHOR_DISABLED', 'the author is out of duty');
        store.Author.put(host, found);
      }
      return cost(6_000_000n, 3, 2);
    },
    onFinalize: ({ host }) => store.Author.kill(host),
  },
});
