/**
 * Names of adapters: what people type, say, and put into the `model` field of a request. One name is one adapter on the whole
 * chain, so a name must not look like another one or like an id. That leaves what every keyboard has and every URL, shell
 * and file system takes as it stands: lower-case ASCII letters, digits, and single separators between them.
 */
import { text } from '../scale/codec.ts';

export const MAX_NAME_LENGTH = 48;
export const adapterName = text(MAX_NAME_LENGTH);

/** Begins with a letter, so that no number is a name; `:` stays out, so that `adapter:7` is none either. */
const NAME = /^[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*$/;

export const isAdapterName = (name: string): boolean => name.length <= MAX_NAME_LENGTH && NAME.test(name);

/** What names have in common that look alike: 0 and o, 1 and l, the three separators. The chain keeps names under this. */
export const skeletonOf = (name: string): string =>
  name.replaceAll('0', 'o').replaceAll('1', 'l').replace(/[._]/g, '-');
