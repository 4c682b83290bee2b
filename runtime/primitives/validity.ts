/** What the runtime answers when asked whether a transaction could go into a block (`sp_runtime::transaction_validity`). */
import { bool, bytes, type Infer, named, result, struct, u8, u64, variants, vec } from './scale/codec.ts';

export const invalidTransaction = named(
  'sp_runtime::transaction_validity::InvalidTransaction',
  variants({
    Call: null,
    Payment: null,
    Future: null,
    Stale: null,
    BadProof: null,
    AncientBirthBlock: null,
    ExhaustsResources: null,
    Custom: u8,
    BadMandatory: null,
    MandatoryValidation: null,
    BadSigner: null,
    IndeterminateImplicit: null,
    UnknownOrigin: null,
  }),
);
export type InvalidTransaction = Infer<typeof invalidTransaction>;

export const unknownTransaction = named(
  'sp_runtime::transaction_validity::UnknownTransaction',
  variants({ CannotLookup: null, NoUnsignedValidator: null, Custom: u8 }),
);
export type UnknownTransaction = Infer<typeof unknownTransaction>;

export const transactionValidityError = named(
  'sp_runtime::transaction_validity::TransactionValidityError',
  variants({ Invalid: invalidTransaction, Unknown: unknownTransaction }),
);
export type TransactionValidityError = Infer<typeof transactionValidityError>;

export const validTransaction = named(
  'sp_runtime::transaction_validity::ValidTransaction',
  struct({
    priority: u64,
    /** Tags that must be provided by other transactions before this one may go into a block. */
    requires: vec(bytes()),
    provides: vec(bytes()),
    /** Blocks that this answer holds for. */
    longevity: u64,
    propagate: bool,
  }),
);
export type ValidTransaction = Infer<typeof validTransaction>;

export const transactionValidity = result(validTransaction, transactionValidityError);
export type TransactionValidity = Infer<typeof transactionValidity>;

export const transactionSource = named(
  'sp_runtime::transaction_validity::TransactionSource',
  variants({ InBlock: null, Local: null, External: null }),
);
export type TransactionSource = Infer<typeof transactionSource>;

/** Thrown inside the runtime when a transaction may not be included; never crosses its boundary. */
export class TransactionRefused extends Error {
  readonly reason: TransactionValidityError;
  constructor(reason: TransactionValidityError) {
    super(reason.value.type);
    this.reason = reason;
  }
}

export const invalid = (type: Exclude<InvalidTransaction['type'], 'Custom'>): TransactionRefused =>
  new TransactionRefused({ type: 'Invalid', value: { type } });
