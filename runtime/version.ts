/** The version that nodes execute, that transactions sign, and that clients compare their definitions with. */

/** Calls, storage, transaction format: `transactionVersion` rises when a call's index or arguments change. */
export const VERSION = {
  specName: 'openledger',
  implName: 'openledger-node',
  authoringVersion: 1,
  specVersion: 1,
  implVersion: 1,
  transactionVersion: 1,
  systemVersion: 1,
};
