/**
 * What a proxy may do for the account that named it, call by call.
 *
 * A proxy of a kind makes the calls that stand under its kind below, and no others: a call that is listed nowhere is for
 * `Any` alone, so that a new call is out of reach until somebody decides. Every kind but `Any` leaves the account what it
 * has. It pays nobody, gives no ownership away, names nobody to be paid, and puts nothing at stake that was not at stake
 * before; what goes on hold is a deposit that comes back to the account. Exceptions stand beside the kind.
 *
 * To add a kind: give it the next index, name it in `KINDS` and list its calls in `REACH`; test/runtime/pallets/
 * proxy-reach.test.ts tries every call of the runtime under it. Indices are part of storage and of pure accounts: never
 * reuse one.
 */
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
type Kind = ProxyType['type'];

/** In the order of their indices, which is how definitions are sorted. */
export const KINDS: readonly Kind[] = [
  'Any',
  'NonTransfer',
  'Governance',
  'Staking',
  'CancelProxy',
  'Datanets',
  'Compute',
];
export const compareProxyTypes = (a: ProxyType, b: ProxyType): number => KINDS.indexOf(a.type) - KINDS.indexOf(b.type);

// ---- what each kind reaches ----------------------------------------------------------------------------------

/** Whether a call may be made with these arguments; `true`: with any. */
type Rule = true | ((args: unknown) => boolean);
type Reach = Readonly<Record<string, Rule>>;

const calls = (pallet: string, ...names: readonly string[]): Reach =>
  Object.fromEntries(names.map((name) => [`${pallet}.${name}`, true as const]));

/** Rewards go to the stash or onto its stake: not to others, and not away. */
const OWN_PAYEES: ReadonlySet<unknown> = new Set(['Staked', 'Stash', 'Controller']);
const paysItself: Rule = (args) => OWN_PAYEES.has((args as { payee: { type: string } }).payee.type);

/** What is in them passes the same filter, on every level. */
const BATCHES = calls('Utility', 'batch', 'batch_all', 'force_batch', 'if_else', 'as_derivative');

/** Places and takes back the account's own stake; whose stakes it follows, and with which keys, is not for all kinds. */
const OWN_STAKE: Reach = {
  ...calls('Staking', 'bond_extra', 'unbond', 'rebond', 'withdraw_unbonded', 'validate', 'chill', 'kick'),
  ...calls('Staking', 'payout_stakers', 'payout_stakers_by_page', 'reap_stash', 'chill_other'),
  ...calls('Staking', 'force_apply_min_commission'),
  'Staking.bond': paysItself,
  'Staking.set_payee': paysItself,
};
const VOTES: Reach = {
  ...calls('ConvictionVoting', 'vote', 'delegate', 'undelegate', 'unlock', 'remove_vote', 'remove_other_vote'),
  ...calls('Governance', 'close'),
};

const REACH: Readonly<Record<Exclude<Kind, 'Any'>, Reach>> = {
  NonTransfer: {
    ...BATCHES,
    ...OWN_STAKE,
    ...VOTES,
    ...calls('System', 'remark', 'remark_with_event'),
    ...calls('Proxy', 'add_proxy', 'remove_proxy', 'reject_announcement', 'remove_announcement'),
    ...calls('Attribution', 'claim'),
  },
  // Proposing leaves deposits, of which one is lost where nearly nobody votes.
  Governance: { ...BATCHES, ...VOTES, ...calls('Governance', 'propose') },
  // A stake answers for the validators that it backs, and for what the session keys sign.
  Staking: {
    ...BATCHES,
    ...OWN_STAKE,
    ...calls('Staking', 'nominate'),
    ...calls('Session', 'set_keys', 'purge_keys'),
  },
  CancelProxy: { ...BATCHES, ...calls('Proxy', 'reject_announcement') },
  // Manages Datanets that the account has: their terms, curators, batches and snapshots.
  Datanets: {
    ...BATCHES,
    ...calls('Datanets', 'set_terms', 'set_curator', 'curate', 'snapshot', 'release_stake'),
    ...calls('Attribution', 'claim'),
  },
  // Runs a worker that the account has registered. Its bond answers for what it trains, serves and judges.
  Compute: {
    ...BATCHES,
    ...calls('Compute', 'update', 'take_lease', 'renew_lease', 'give_up_lease', 'leave', 'withdraw'),
    ...calls('Attribution', 'submit_training', 'settle', 'reveal_fault', 'claim'),
    ...calls('Audits', 'commit', 'reveal', 'disclose'),
    ...calls('Inference', 'serve', 'stop_serving'),
  },
};

/** Names of all calls that some restricted kind reaches (`Pallet.call`). */
export const reachedCalls = (): ReadonlySet<string> =>
  new Set(Object.values(REACH).flatMap((each) => Object.keys(each)));

/** Whether a proxy of this kind may make a call. */
export function allows({ type: kind }: ProxyType, { type, value }: RuntimeCall): boolean {
  if (kind === 'Any') return true;
  const reach = REACH[kind];
  const name = `${type}.${value.type}`;
  const rule = Object.hasOwn(reach, name) ? reach[name] : undefined;
  return rule === true || rule?.(value.value ?? {}) === true;
}

const rank = (rule: Rule | undefined): number => (rule === undefined ? 0 : rule === true ? 2 : 1);

/** Whether whoever is a proxy of kind `a` may name one of kind `b`: it reaches all that `b` does. */
export function isSuperset({ type: a }: ProxyType, { type: b }: ProxyType): boolean {
  if (a === 'Any' || a === b) return true;
  if (b === 'Any') return false;
  return Object.entries(REACH[b]).every(([name, rule]) => rank(REACH[a][name]) >= rank(rule));
}
