/** What every client's script has in common: named checks, and nothing printed that the client should not have said. */

import { Keyring } from '@polkadot/keyring';
import { cryptoWaitReady } from '@polkadot/util-crypto';

/**
 * Printed by @polkadot/api whatever a node does: it does not know the groups of the new specification, and it prints what it
 * rejects, which is what a script that sends bad transactions is after.
 */
const UNAVOIDABLE = /RPC methods not decorated|RPC-CORE: submitExtrinsic/;

export const UNIT = 10n ** 18n;
export const url = process.argv[2];
/** The node itself, where `url` is a proxy before it. */
const http = (process.env.NODE_URL ?? url).replace('ws:', 'http:');

/** A script may have to keep its client from ending the process. */
const exit = process.exit.bind(process);

const started = performance.now();
const results = [];
const warnings = [];
for (const name of ['warn', 'error']) {
  const print = console[name].bind(console);
  console[name] = (...args) => {
    const text = args.map(String).join(' ');
    if (!UNAVOIDABLE.test(text)) {
      warnings.push(text);
      print(...args);
    }
  };
}

export function check(name, condition, detail) {
  results.push({ name, ok: condition === true });
  const seconds = ((performance.now() - started) / 1_000).toFixed(1);
  if (process.env.VERBOSE !== undefined) print(`  ${seconds} s: ${name}`);
  if (condition !== true) print(`  failed: ${name}${detail === undefined ? '' : ` (${detail})`}`);
}
const print = (text) => process.stdout.write(`${text}\n`);

export async function rejects(name, promise, expected) {
  try {
    await promise;
    check(name, false, 'it was accepted');
  } catch (problem) {
    check(name, expected.test(`${problem?.code ?? ''} ${problem?.message ?? problem}`), problem?.message ?? problem);
  }
}

/** Whose money is spent; a script of its own has it alone, since nonces are nobody else's business. */
export const FUNDER = process.env.FUNDER ?? '//Alice';

/** The one who pays, and an account of each scheme that belongs to the script alone. */
export async function people(label) {
  await cryptoWaitReady();
  const pair = (type, uri) => new Keyring({ type, ss58Format: 42 }).addFromUri(uri);
  return {
    funder: pair('sr25519', FUNDER),
    own: ['sr25519', 'ed25519', 'ecdsa'].map((type) => ({ type, pair: pair(type, `//${label}`) })),
  };
}

/** One request over HTTP. */
export async function request(method, ...params) {
  const response = await fetch(http, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  });
  const { result, error } = await response.json();
  if (error !== undefined) throw Object.assign(new Error(`${error.message} ${error.data ?? ''}`), { code: error.code });
  return result;
}

/** The nonce of an account's next transaction: accounts begin with the number of the block that makes them. */
export const nonceOf = async (address) => Number(await request('system_accountNextIndex', address));

/** What every block holds beside people's transactions: the time, and the author's secret. */
export const INHERENTS = 2;

/** Heights of the last 100 final blocks, waiting for so many if need be. */
export async function lastHundred() {
  for (;;) {
    const { number } = await request('chain_getHeader', await request('chain_getFinalizedHead'));
    const last = Number(number);
    if (last >= 100) return Array.from({ length: 100 }, (_, i) => last - 99 + i);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

export function within(promise, ms, what) {
  return Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new Error(`${what} took more than ${ms} ms`)), ms).unref()),
  ]);
}

/** Runs a script, for `ms` at most, and ends the process with its verdict on the last line. */
export async function main(run, ms = 600_000) {
  let crash;
  try {
    await within(run(), ms, 'the script');
  } catch (problem) {
    crash = problem;
    print(`  crashed: ${problem?.stack ?? problem}`);
  }
  check('no warning and no error is printed', warnings.length === 0, warnings.join('; '));
  const failed = results.filter(({ ok }) => !ok).length;
  print(JSON.stringify({ checks: results.length, failed: failed + (crash === undefined ? 0 : 1) }));
  exit(failed === 0 && crash === undefined ? 0 : 1);
}
