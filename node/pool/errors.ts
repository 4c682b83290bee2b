/** What clients are told of a refused transaction: codes and texts of Substrate's `author` namespace. */
import { toHex } from '../../runtime/primitives/bytes.ts';
import type {
  InvalidTransaction,
  TransactionValidityError,
  UnknownTransaction,
} from '../../runtime/primitives/validity.ts';
import { PoolError } from '../ports/chain.ts';
import type { Refusal } from './queues.ts';

const INVALID: Readonly<Record<Exclude<InvalidTransaction['type'], 'Custom'>, string>> = {
  Call: 'Transaction call is not expected',
  Payment: 'Inability to pay some fees (e.g. account balance too low)',
  Future: 'Transaction will be valid in the future',
  Stale: 'Transaction is outdated',
  BadProof: 'Transaction has a bad signature',
  AncientBirthBlock: 'Transaction has an ancient birth block',
  ExhaustsResources: 'Transaction would exhaust the block limits',
  BadMandatory: 'A call was labelled as mandatory, but resulted in an Error.',
  MandatoryValidation: 'Transaction dispatch is mandatory; transactions must not be validated.',
  BadSigner: 'Invalid signing address',
  IndeterminateImplicit: 'The implicit data was unable to be calculated',
  UnknownOrigin: 'The transaction extension did not authorize any origin',
};

export const invalidText = (reason: InvalidTransaction): string =>
  reason.type === 'Custom' ? `Custom error: ${reason.value}` : INVALID[reason.type];

const unknownText = (reason: UnknownTransaction): string =>
  reason.type === 'Custom' ? `Custom(${reason.value})` : reason.type;

/** Reasons that depend on the state, and so on the block that a node is at. */
const PASSING: ReadonlySet<InvalidTransaction['type']> = new Set([
  'Payment',
  'Future',
  'Stale',
  'AncientBirthBlock',
  'ExhaustsResources',
  'Custom',
]);

export const invalidError = (error: TransactionValidityError): PoolError =>
  error.type === 'Invalid'
    ? new PoolError('INVALID', 1010, 'Invalid Transaction', invalidText(error.value), PASSING.has(error.value.type))
    : new PoolError('UNKNOWN_VALIDITY', 1011, 'Unknown Transaction Validity', unknownText(error.value));

export const bannedError = (): PoolError =>
  new PoolError('TEMPORARILY_BANNED', 1012, 'Transaction is temporarily banned');

export const alreadyImportedError = (hash: Uint8Array): PoolError =>
  new PoolError('ALREADY_IMPORTED', 1013, 'Transaction Already Imported', toHex(hash));

export const droppedError = (): PoolError =>
  new PoolError(
    'IMMEDIATELY_DROPPED',
    1016,
    'Immediately Dropped',
    "The transaction couldn't enter the pool because of the limit",
  );

export const unactionableError = (): PoolError =>
  new PoolError(
    'UNACTIONABLE',
    1018,
    'Unactionable',
    'The transaction is unactionable since it is not propagable and the local node does not author blocks',
  );

export const noTagsError = (): PoolError =>
  new PoolError(
    'UNACTIONABLE',
    1019,
    'No tags provided',
    "Transaction does not provide any tags, so the pool can't identify it",
  );

export function refusalError(refusal: Refusal, hash: Uint8Array): PoolError {
  switch (refusal.type) {
    case 'alreadyImported':
      return alreadyImportedError(hash);
    case 'cycle':
      return new PoolError('CYCLE', 1015, 'Cycle Detected');
    case 'immediatelyDropped':
      return droppedError();
    case 'tooLowPriority':
      return new PoolError(
        'TOO_LOW_PRIORITY',
        1014,
        `Priority is too low: (${refusal.old} vs ${refusal.new})`,
        'The transaction has too low priority to replace another transaction already in the pool.',
      );
  }
}
