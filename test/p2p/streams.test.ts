/** Frames of streams that end in every way that libp2p's streams do. */
import type { Stream } from '@libp2p/interface';
import t from 'tap';
import { encodeFrame } from '../../p2p/wire/framing.ts';
import { listenFrames } from '../../p2p/wire/streams.ts';
import { concatBytes } from '../../runtime/primitives/bytes.ts';

/** A stream as `@libp2p/utils` makes them, as far as a listener sees. */
class FakeStream extends EventTarget {
  status = 'open';
  readStatus = 'readable';
  readableEnded = false;
  #held: Uint8Array[] = [];

  get readBufferLength(): number {
    return this.#held.reduce((sum, each) => sum + each.length, 0);
  }

  data(...chunks: readonly Uint8Array[]): void {
    this.#held.push(...chunks);
    this.#deliver();
  }

  /** The other side writes no more. */
  end(): void {
    if (this.readBufferLength > 0) return;
    this.readableEnded = true;
    this.dispatchEvent(new Event('end'));
  }

  pause(): void {
    this.readStatus = 'paused';
  }

  resume(): void {
    this.readStatus = 'readable';
    this.#deliver();
  }

  abort(): void {}

  #deliver(): void {
    if (this.readStatus === 'paused' || this.#held.length === 0) return;
    const chunk = concatBytes(...this.#held.splice(0));
    this.dispatchEvent(Object.assign(new Event('message'), { data: { subarray: () => chunk } }));
  }
}

/** What comes out, in order: first bytes of frames, and `end` or what was wrong. */
function listen(stream: FakeStream): { readonly heard: (number | string)[]; readonly ended: Promise<void> } {
  const heard: (number | string)[] = [];
  const ended = new Promise<void>((resolve) => {
    listenFrames(stream as unknown as Stream, {
      max: 100,
      onFrame: async (frame) => {
        await new Promise((resolve) => setImmediate(resolve));
        heard.push(frame[0]!);
      },
      onEnd: (problem) => {
        heard.push(problem === undefined ? 'end' : problem.message);
        resolve();
      },
    });
  });
  return { heard, ended };
}

const frames = (from: number, count: number): Uint8Array =>
  concatBytes(...Array.from({ length: count }, (_, i) => encodeFrame(Uint8Array.of(from + i, 7))));

t.test('what comes together with the end of a stream is heard', async (test) => {
  // Yamux tells of the end that a frame of data carries before it hands over the data.
  const stream = new FakeStream();
  const { heard, ended } = listen(stream);
  stream.end();
  stream.data(frames(1, 2));
  await ended;
  test.same(heard, [1, 2, 'end']);
});

t.test('what is held back when a stream ends is heard', async (test) => {
  const stream = new FakeStream();
  const { heard, ended } = listen(stream);
  stream.data(frames(0, 40));
  test.equal(stream.readStatus, 'paused', 'more frames than are taken at a time');
  stream.end();
  stream.data(frames(40, 3));
  await ended;
  test.same(heard, [...Array.from({ length: 43 }, (_, i) => i), 'end']);
});

t.test('a stream that has ended already, and one that ends within a frame', async (test) => {
  const over = new FakeStream();
  over.end();
  const first = listen(over);
  await first.ended;
  test.same(first.heard, ['end']);

  const cut = new FakeStream();
  const second = listen(cut);
  cut.data(frames(5, 1), Uint8Array.of(9, 1));
  cut.end();
  await second.ended;
  test.same(second.heard, [5, 'the stream ended within a frame']);
});
