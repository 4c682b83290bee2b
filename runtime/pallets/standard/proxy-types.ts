/** What a proxy may do for the account that named it. Indices are part of storage and of pure accounts: never reuse one. */
import type { RuntimeCall } from '../../framework/runtime-call.ts';
import { type Infer, named, variants } from '../../primitives/scale/codec.ts';

export const proxyType = named(
  'openledger_runtime::ProxyType',
  variants({
    Any: [0, null],
    NonTransfer: [1, null],
    Governance: [2, null],
    Staking: [3, null],
    CancelProxy: [4, null],
    Datanets: [5, null],
    Compute: [6, null],
  }),
);
export type ProxyType = Infer<typeof proxyType>;

/** In the order of their indices, which is how definitions are sorted. */
const ORDER: readonly ProxyType['type'][] = [
  'Any',
  'NonTransfer',
  'Governance',
  'Staking',
  'CancelProxy',
  'Datanets',
  'Compute',
];
export const compareProxyTypes = (a: ProxyType, b: ProxyType): number => ORDER.indexOf(a.type) - ORDER.indexOf(b.type);

/**
 * The pallets that each kind reaches. Batches may always be used: what is in them passes the same filter. What is not
 * listed is refused, so a new pallet is out of reach until someone decides.
 */
const REACH: Readonly<Record<Exclude<ProxyType['type'], 'Any' | 'CancelProxy'>, ReadonlySet<string>>> = {
  // Nothing that pays whom the caller names: no Balances, no orders of Models, no sessions of Inference, and nothing
  // that acts for a further account (Multisig, Proxy.proxy), whose funds would be out of this filter's sight.
  NonTransfer: new Set([
    'System',
    'Session',
    'Staking',
    'Governance',
    'Datanets',
    'Blobs',
    'Compute',
    'Attribution',
    'Audits',
    'Proxy',
    'Utility',
  ]),
  Governance: new Set(['Governance', 'Utility']),
  Staking: new Set(['Staking', 'Session', 'Utility']),
  Datanets: new Set(['Datanets', 'Blobs', 'Utility']),
  Compute: new Set(['Compute', 'Attribution', 'Audits', 'Blobs', 'Utility']),
};
const ACTS_FOR_OTHERS = new Set(['proxy', 'proxy_announced']);

/** Whether a proxy of this kind may make a call. */
export function allows({ type: kind }: ProxyType, { type, value }: RuntimeCall): boolean {
  switch (kind) {
    case 'Any':
      return true;
    case 'CancelProxy':
      return type === 'Utility' || (type === 'Proxy' && value.type === 'reject_announcement');
    case 'NonTransfer':
      return REACH.NonTransfer.has(type) && !(type === 'Proxy' && ACTS_FOR_OTHERS.has(value.type));
    default:
      return REACH[kind].has(type);
  }
}

/** Whether whoever is a proxy of kind `a` may name one of kind `b`. */
export function isSuperset({ type: a }: ProxyType, { type: b }: ProxyType): boolean {
  if (a === 'Any' || a === b) return true;
  return a === 'NonTransfer' && b !== 'Any';
}
