/** Tables for people's eyes. */
import Table from 'cli-table3';

/** Columns whose heading begins with `>` are set to the right. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const made = new Table({
    head: headings.map((heading) => heading.replace(/^>/, '')),
    colAligns: headings.map((heading) => (heading.startsWith('>') ? 'right' : 'left')),
    chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
    style: { head: process.stdout.isTTY ? ['bold'] : [], border: [] },
  });
  for (const row of rows) made.push([...row]);
  return made.toString();
}
