/** The standard methods, all of them. */

import { archiveGroup } from './groups/archive.ts';
import { authorGroup } from './groups/author.ts';
import { chainGroup } from './groups/chain.ts';
import { chainHeadGroup } from './groups/chain-head.ts';
import { chainSpecGroup } from './groups/chain-spec.ts';
import { ChainView } from './groups/chain-view.ts';
import type { RpcContext } from './groups/context.ts';
import { grandpaGroup } from './groups/grandpa.ts';
import { paymentGroup } from './groups/payment.ts';
import { stateGroup } from './groups/state.ts';
import { systemGroup } from './groups/system.ts';
import { transactionGroup } from './groups/transaction.ts';
import type { Group } from './server/method.ts';

export function standardGroups(context: RpcContext): readonly Group[] {
  const all = { ...context, view: new ChainView(context.client, context.log) };
  return [
    systemGroup(all),
    chainGroup(all),
    stateGroup(all),
    authorGroup(all),
    paymentGroup(all),
    grandpaGroup(all),
    chainSpecGroup(all),
    chainHeadGroup(all),
    transactionGroup(all),
    archiveGroup(all),
  ];
}
