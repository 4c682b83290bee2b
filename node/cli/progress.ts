/** Long work on a terminal as a bar, elsewhere as a line now and then. */
import { SingleBar } from 'cli-progress';

const LINE_MS = 10_000;

export interface Progress {
  /** `done`: 0 … 1. */
  show(done: number, words: string): void;
  /** What is worth a line of its own: a new phase, a result. */
  note(words: string): void;
  end(): void;
}

/** `title` stands in front; everything goes to `out` (default: standard error, so that results can be piped). */
export function progress(title: string, out: NodeJS.WriteStream = process.stderr): Progress {
  return out.isTTY ? bar(title, out) : lines(title, out);
}

function bar(title: string, out: NodeJS.WriteStream): Progress {
  let single: SingleBar | undefined;
  const end = (): void => {
    single?.stop();
    single = undefined;
  };
  return {
    show(done, words) {
      if (single === undefined) {
        single = new SingleBar({
          stream: out,
          format: '  {title} {bar} {percentage} %  {words}',
          barCompleteChar: '█',
          barIncompleteChar: '·',
          barsize: 24,
          hideCursor: true,
          clearOnComplete: true,
          stopOnComplete: false,
        });
        single.start(1000, 0, { title, words });
      }
      single.update(Math.round(done * 1000), { title, words });
    },
    note(words) {
      end();
      out.write(`  ${title}: ${words}\n`);
    },
    end,
  };
}

function lines(title: string, out: NodeJS.WriteStream): Progress {
  let told = 0;
  return {
    show(done, words) {
      if (Date.now() - told < LINE_MS) return;
      told = Date.now();
      out.write(`  ${title}: ${Math.round(done * 100)} %, ${words}\n`);
    },
    note(words) {
      out.write(`  ${title}: ${words}\n`);
    },
    end() {},
  };
}
