/**
 * The pallets' definitions, which are the language of every client: `ledger.read(pallets.compute.store.Workers, account)`.
 * Programs that start often import the one pallet's module that they need instead.
 */
import * as governancePallet from '../../runtime/pallets/standard/governance.ts';
import * as multisigPallet from '../../runtime/pallets/standard/multisig.ts';
import * as proxyPallet from '../../runtime/pallets/standard/proxy.ts';
import * as sessionPallet from '../../runtime/pallets/standard/session.ts';
import * as sudoPallet from '../../runtime/pallets/standard/sudo.ts';
import * as systemPallet from '../../runtime/pallets/standard/system.ts';
import * as utilityPallet from '../../runtime/pallets/standard/utility.ts';
import { VERSION } from '../../runtime/version.ts';
import { nestedCall } from './call.ts';

export * as attribution from '../../runtime/pallets/ledger/attribution.ts';
export * as audits from '../../runtime/pallets/ledger/audits.ts';
export * as blobs from '../../runtime/pallets/ledger/blobs.ts';
export * as compute from '../../runtime/pallets/ledger/compute.ts';
export * as datanets from '../../runtime/pallets/ledger/datanets.ts';
export * as inference from '../../runtime/pallets/ledger/inference.ts';
export * as models from '../../runtime/pallets/ledger/models.ts';
export * as aura from '../../runtime/pallets/standard/aura.ts';
export * as balances from '../../runtime/pallets/standard/balances.ts';
export * as convictionVoting from '../../runtime/pallets/standard/conviction-voting.ts';
export * as grandpa from '../../runtime/pallets/standard/grandpa.ts';
export * as historical from '../../runtime/pallets/standard/historical.ts';
export * as offences from '../../runtime/pallets/standard/offences.ts';
export * as staking from '../../runtime/pallets/standard/staking.ts';
export * as timestamp from '../../runtime/pallets/standard/timestamp.ts';
export * as transactionPayment from '../../runtime/pallets/standard/transaction-payment.ts';
export * as treasury from '../../runtime/pallets/standard/treasury.ts';

/** What the pallets need whose calls contain calls. */
const outer = { codec: nestedCall };

export const system = { ...systemPallet, calls: systemPallet.system(() => ({ ...VERSION, apis: [] })).calls };
export const session = { ...sessionPallet, calls: sessionPallet.session().calls };
export const utility = { ...utilityPallet, calls: utilityPallet.utility(outer).calls };
export const multisig = { ...multisigPallet, calls: multisigPallet.multisig(outer).calls };
export const proxy = { ...proxyPallet, calls: proxyPallet.proxy(outer).calls };
export const sudo = { ...sudoPallet, calls: sudoPallet.sudo(outer).calls };
export const governance = { ...governancePallet, calls: governancePallet.governance(outer).calls };
