/**
 * The ledger for applications. `Ledger.connect` speaks with a node in the pallets' own definitions; `PaidQuestions` asks adapters and pays
 * by voucher. Runs in browsers as in Node: it needs a WebSocket, `fetch` and JavaScript.
 */
export { holdingsOf, transfer, transferToMany } from './accounts.ts';
export { accountOfAddress, addressOf, SS58_PREFIX } from './address.ts';
export { prepareBatch } from './batches.ts';
export { Call, type CallArgs, callOf, toAccount } from './call.ts';
export {
  batchesOf,
  contribute,
  type DatanetTerms,
  datanetOf,
  datanets,
  openDatanet,
  snapshotOf,
  takeSnapshot,
} from './datanets.ts';
export { CallFailed, failedWith, LedgerError } from './errors.ts';
export { hashing } from './hashing.ts';
export { PaidFailure, type PaidFailureCode } from './job-failure.ts';
export { ConnectionLost, JsonRpcClient, JsonRpcError, NoNodeError } from './json-rpc.ts';
export { type ConnectOptions, Ledger, type LedgerReads } from './ledger.ts';
export { Made } from './made.ts';
export {
  adapterOf,
  adapters,
  awaitAdapter,
  baseModels,
  type OrderProgress,
  type OrderTerms,
  orderOf,
  orderProgress,
  orders,
  orderTraining,
  trainingReceiptOf,
} from './models.ts';
export { type PaidAnswer, PaidQuestions, type PaidQuestionsOptions, type Question } from './paid-questions.ts';
export * as pallets from './pallets.ts';
export type { Preview } from './preview.ts';
export { type Funding, Purse, type PurseOptions, type PurseStore } from './purse.ts';
export { allRewards, claim, rewardsOf } from './rewards.ts';
export { chooseAdapter, type ServedAdapter, servedAdapters } from './served-adapters.ts';
export { closeSession, openSession, sessionOf, sessionsOf, topUp, withdrawDeposit } from './sessions.ts';
export { accountOfKey, type LocalSigner, type Scheme, type Signer } from './signer.ts';
export type { SpendingLimits } from './spending-limits.ts';
export type { SubmitOptions } from './submission.ts';
export { TRAINING_DEFAULTS, type TrainingChoices } from './training-config.ts';
