/**
 * Text that strangers choose and people read: names, descriptions, licences. What cannot be seen, or turns the direction of
 * what stands around it, has no place there: it makes one thing look like another in every list and terminal.
 */

/** Code points that nobody sees, first and last of each range. They are listed: tables of Unicode differ between engines. */
const UNSEEN: readonly (readonly [first: number, last: number])[] = [
  [0x00, 0x1f], // controls
  [0x7f, 0x9f],
  [0xad, 0xad], // soft hyphen
  [0x34f, 0x34f], // combining joiner
  [0x61c, 0x61c], // direction marks
  [0x115f, 0x1160], // fillers
  [0x17b4, 0x17b5],
  [0x180b, 0x180f],
  [0x200b, 0x200f], // zero width, direction
  [0x2028, 0x202e], // separators of lines, direction
  [0x2060, 0x206f],
  [0x3164, 0x3164],
  [0xd800, 0xdfff], // halves of pairs
  [0xfe00, 0xfe0f], // variation selectors
  [0xfeff, 0xfeff],
  [0xffa0, 0xffa0],
  [0xfff0, 0xfffb],
  [0xfffe, 0xffff],
  [0x1d173, 0x1d17a],
  [0xe0000, 0xe0fff], // tags
];

const isUnseen = (point: number): boolean => UNSEEN.some(([first, last]) => point >= first && point <= last);

const isSeen = (text: string, allowed: string): boolean => {
  for (const each of text) if (!allowed.includes(each) && isUnseen(each.codePointAt(0)!)) return false;
  return true;
};

/** One line that can be seen and does not begin or end with blanks. */
export const isLabel = (text: string): boolean => text !== '' && text === text.trim() && isSeen(text, '');

/** Any number of lines. */
export const isProse = (text: string): boolean => isSeen(text, '\t\n');
