/** Server-sent events (WHATWG HTML, 9.2): the data of each, as far as completions need them. */
const LONGEST = 1 << 20;

export async function* events(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of body) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split(/\r\n|\n/);
    rest = lines.pop()!;
    if (rest.length > LONGEST) throw new RangeError('an event without an end');
    for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trimStart();
  }
}
