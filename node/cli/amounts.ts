/** OPEN as people write it: `12.5`, with up to 18 decimals. */
import { InvalidArgumentError } from 'commander';

const DECIMALS = 18;
export const OPEN = 10n ** 18n;

/** In the smallest unit. Throws commander's error for a flag's value. */
export function parseOpen(text: string): bigint {
  const match = /^(\d+)(?:\.(\d{1,18}))?$/.exec(text.replaceAll('_', ''));
  if (match === null) throw new InvalidArgumentError('an amount of OPEN, such as 12.5');
  const [, whole = '0', part = ''] = match;
  return BigInt(whole) * OPEN + BigInt(part.padEnd(DECIMALS, '0'));
}

/** With at most `digits` decimals, cut, not rounded: nobody has more than it says. */
export function formatOpen(amount: bigint, digits = 4): string {
  const sign = amount < 0n ? '-' : '';
  const positive = amount < 0n ? -amount : amount;
  const whole = (positive / OPEN).toString().replace(/\B(?=(\d{3})+$)/g, ',');
  const part = (positive % OPEN).toString().padStart(DECIMALS, '0').slice(0, digits).replace(/0+$/, '');
  return part === '' ? `${sign}${whole}` : `${sign}${whole}.${part}`;
}
