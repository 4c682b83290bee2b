/** Authorship: whose block this is (`pallet_authorship`). */
import { cost } from '../../framework/dispatch.ts';
import { pallet } from '../../framework/pallet.ts';
import { optionalValue, storage } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { InvalidBlock } from '../../primitives/invalid-block.ts';
import { type AccountId, accountId, asAccountId } from '../../primitives/types.ts';
import * as aura from './aura/authorities.ts';
import * as session from './session.ts';

export const store = storage('Authorship', {
  Author: optionalValue(accountId, 'Author of current block.'),
});

/** The account behind the Aura key of the slot: the validator that registered it, else the account of the same bytes. */
function find(host: Host): AccountId | undefined {
  const index = aura.authorIndex(host);
  const key = index === undefined ? undefined : aura.authorities(host)[index];
  return key === undefined ? undefined : (session.keyOwner(host, 'aura', key) ?? asAccountId(key));
}

/** The author of the current block, from its initialization to the end of its finalization. */
export const author = (host: Host): AccountId | undefined => store.Author.get(host);

export const authorship = pallet({
  name: 'Authorship',
  index: 31,
  docs: 'The author of the current block.',
  storage: store,
  hooks: {
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
