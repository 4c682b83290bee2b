/**
 * A child that speaks the protocol without Python, from its own reading of `protocol.py`, and misbehaves on demand:
 * `node fake-child.mjs MODE --scratch DIR`. How often it was started in this directory says which process of a row it is.
 */
import { existsSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const mode = process.argv[2];
const scratch = process.argv[process.argv.indexOf('--scratch') + 1];
const counter = join(scratch, 'starts');
const starts = existsSync(counter) ? Number(readFileSync(counter, 'utf8')) + 1 : 1;
writeFileSync(counter, String(starts));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const figures = {
  active: 0,
  waiting: 0,
  adapters: 0,
  generated: 0,
  prompt: 0,
  memory: 1,
  tiers: { device: 0, host: 0, disk: 0 },
};
const adapters = new Map();
const features = new Map();
let silent = false;

function raw(head, tail = Buffer.alloc(0)) {
  const lengths = Buffer.alloc(8);
  lengths.writeUInt32LE(head.length, 0);
  lengths.writeUInt32LE(tail.length, 4);
  process.stdout.write(Buffer.concat([lengths, head, tail]));
}

function send(header, parts = []) {
  if (silent) return;
  const head = { ...header };
  let tail = Buffer.concat(parts);
  if (parts.length > 0) head.parts = parts.map((part) => part.length);
  if (tail.length > 4 << 20) {
    head.file = `tail-${process.pid}-${Math.round(performance.now() * 1e6)}`;
    writeFileSync(join(scratch, head.file), tail);
    tail = Buffer.alloc(0);
  }
  raw(Buffer.from(JSON.stringify(head)), tail);
}

const doubles = (...values) => Buffer.from(Float64Array.from(values).buffer);
const floats = (values) => Buffer.from(Float32Array.from(values).buffer);
const running = new Map();

const methods = {
  load({ directory }, _parts, call) {
    const hash = 'ab'.repeat(32);
    call.done({
      ...{
        architecture: 'Fake',
        name: directory.split('/').at(-1),
        parameters: 10,
        vocabulary: 301,
        width: 4,
        layers: 2,
      },
      ...{
        maxPositions: 96,
        files: { config: hash, weights: hash, tokenizer: hash },
        device: 'none',
        dtype: 'fp32',
        figures,
      },
      sites: [
        [0, 'q_proj', 4, 6],
        [1, 'q_proj', 4, 6],
      ],
    });
  },
  openAdapter({ adapter }, parts, call) {
    writeFileSync(join(scratch, `adapter-${adapter}`), Buffer.concat(parts));
    adapters.set(adapter, parts[0].length);
    call.done({ lora: { rank: 2, alpha: 4, targets: ['q_proj'] }, bytes: 80, figures });
  },
  recoverAdapters({ adapters: ids }, _parts, call) {
    for (const id of ids) {
      if (!existsSync(join(scratch, `adapter-${id}`))) return call.failed('BAD_ADAPTER', `adapter ${id}`);
      adapters.set(id, 1);
    }
    call.done({ figures });
  },
  closeAdapter({ adapter }, _parts, call) {
    adapters.delete(adapter);
    call.done({ figures });
  },
  async generate({ prompt, given, maxTokens, seed, adapter }, _parts, call) {
    if (mode === 'crash always') process.exit(9);
    if (mode === 'unknown code') return call.failed('E_WHATEVER', 'who knows');
    if (mode === 'out of memory') return call.failed('OUT_OF_MEMORY', 'no more');
    if (mode === 'wrong tokens') return send({ type: 'tokens', tokens: [call.id, 5000] });
    if (mode === 'answers to nobody') return send({ type: 'done', id: 4711, value: {} });
    if (mode === 'not JSON') return raw(Buffer.from('{nonsense'));
    if (mode === 'gigantic' && starts === 1) {
      const lengths = Buffer.alloc(8, 255);
      return process.stdout.write(lengths);
    }
    if (mode === 'foreign file')
      return raw(Buffer.from('{"type":"beat","busy":0,"file":"../../etc/hostname","parts":[]}'));
    if (mode === 'hang' && starts === 1) {
      silent = true;
      return;
    }
    if (mode === 'stall' && starts === 1) return send({ type: 'beat', busy: 1e6, ...figures });
    if (adapter !== undefined && !adapters.has(adapter)) return call.failed('ADAPTER_CLOSED', 'unknown');
    for (let index = given.length; index < maxTokens; index++) {
      if (call.cancelled) return call.done({ finish: 'aborted', figures });
      if (mode === 'crash at a token' && starts === 1 && index === 5) process.kill(process.pid, 'SIGKILL');
      figures.generated++;
      const sum = prompt.reduce((x, y) => x + y, 0);
      send({ type: 'tokens', tokens: [call.id, 5 + ((Number(seed) + sum + index * 7) % 250)] });
      await pause(mode === 'does not stop' ? 50 : 1);
    }
    call.done({ finish: 'length', figures });
  },
  async train({ settings }, [_examples, weights, resume], call) {
    const from = resume.length === 0 ? 0 : resume.readUInt32LE(0);
    const state = (step) => {
      const bytes = Buffer.alloc(5 << 20, step);
      bytes.writeUInt32LE(step, 0);
      return bytes;
    };
    for (let step = from + 1; step <= settings.steps; step++) {
      if (call.cancelled) return call.gaveUp();
      if (mode === 'crash in training' && step === 6 && starts < 4) process.exit(1);
      send({
        ...{ type: 'event', id: call.id, event: 'progress', step, total: settings.steps, loss: 10 / step },
        ...{ learningRate: 0.1, tokensPerSecond: 1 },
      });
      if (step % settings.checkpointEvery === 0) {
        send({ type: 'event', id: call.id, event: 'checkpoint', step }, [state(step)]);
        await call.stored();
      }
      await pause(1);
    }
    const value = { steps: settings.steps, tokens: weights.length, loss: from, milliseconds: 1, figures };
    call.done(value, [Buffer.from('config'), Buffer.from('final'), Buffer.from('middle')]);
  },
  gradients(_params, [examples], call) {
    const numbers = new Int32Array(new Uint8Array(examples).buffer);
    const losses = [];
    const gradients = [];
    for (let at = 0; at < numbers.length; at += 2 + numbers[at + 1]) {
      losses.push(numbers[at + 2]);
      gradients.push(
        Buffer.from(Float32Array.from({ length: mode === 'short gradients' ? 39 : 40 }, () => numbers[at + 2]).buffer),
      );
    }
    call.done({}, [doubles(...losses), ...gradients]);
  },
  openFeatures({ features: id, sketchSeed }, [eigenbases, projection], call) {
    if (mode === 'no bases') return call.failed('BAD_REQUEST', 'not a file of bases');
    // What a safetensors file's header says first: the shape of the energy, which is [k].
    const length = Number(projection.readBigUInt64LE(0));
    const [k] = JSON.parse(projection.subarray(8, 8 + length).toString()).energy.shape;
    writeFileSync(join(scratch, `features-${id}`), JSON.stringify({ k, sketchSeed, bytes: eigenbases.length }));
    features.set(id, k);
    call.done({ k, bytes: 1 });
  },
  recoverFeatures({ features: ids }, _parts, call) {
    for (const id of ids) features.set(id, JSON.parse(readFileSync(join(scratch, `features-${id}`), 'utf8')).k);
    call.done({});
  },
  closeFeatures({ features: id }, _parts, call) {
    features.delete(id);
    unlinkSync(join(scratch, `features-${id}`));
    call.done({});
  },
  features({ features: id, adapter }, [examples], call) {
    if (mode === 'crash at a feature' && starts === 1) process.kill(process.pid, 'SIGKILL');
    if (!features.has(id) || !adapters.has(adapter)) return call.failed('BAD_REQUEST', 'the bases are closed');
    const k = features.get(id) + (mode === 'wide features' ? 1 : 0);
    const numbers = new Int32Array(new Uint8Array(examples).buffer);
    const losses = [];
    const rows = [];
    for (let at = 0; at < numbers.length; at += 2 + numbers[at + 1]) {
      losses.push(numbers[at + 2]);
      // Coordinates, and behind them the squared norm.
      rows.push(...Array.from({ length: k }, (_, j) => numbers[at + 2] + j), 4 * (numbers[at + 2] + 1) ** 2);
    }
    call.done({}, [doubles(...losses), floats(rows)]);
  },
  async fitFeatures({ fit, k, sketchWidth, sketchSeed, block }, [examples, sample], call) {
    const kept = join(scratch, `fit-${fit}`);
    const from = existsSync(kept) ? Number(readFileSync(kept, 'utf8')) : 0;
    const phases = ['gradients', 'bases', 'features'];
    for (let at = from; at < 6; at++) {
      if (call.cancelled) return call.gaveUp();
      const [phase, done] = [phases[at >> 1], 0.5 * ((at & 1) + 1)];
      send({ type: 'event', id: call.id, event: 'progress', phase: mode === 'odd phase' ? 'lunch' : phase, done });
      while (mode === 'endless fit' && !call.cancelled) await pause(1);
      if (mode === 'crash in a fit' && at === 1 && starts === 1) process.exit(1);
      if (mode === 'crash in each fit' && at === 3) process.exit(1);
      if (mode === 'crash in a fit' && at === 4 && starts === 2) {
        // What it reached is kept now and then.
        writeFileSync(kept, '3');
        process.exit(1);
      }
      await pause(1);
    }
    const numbers = new Int32Array(new Uint8Array(examples).buffer);
    let count = 0;
    for (let at = 0; at < numbers.length; at += 2 + numbers[at + 1]) count++;
    // Two layers of q_proj, 4 to 6: matrices of [2, 4] and [2, 6], in turns.
    const blocks = (hidden) => Math.floor(hidden / block) * block ** 2 + (hidden % block) ** 2;
    const arrays = [4 * 4, 2 * (blocks(4) + blocks(6)), 40, k * sketchWidth, k, count * (k + 1)];
    if (mode === 'short fit') arrays[3]--;
    const parts = arrays.map((length, i) => floats(Array.from({ length }, (_, j) => 100 * i + j)));
    if (existsSync(kept)) unlinkSync(kept);
    call.done({ sampled: sample.length / 4, sketchSeed }, parts);
  },
};

function begin({ id, method, params }, parts) {
  let release = () => {};
  const end = (header, more = []) => {
    running.delete(id);
    send({ id, ...header }, more);
  };
  const call = {
    id,
    cancelled: false,
    done: (value, more) => end({ type: 'done', value }, more),
    failed: (code, message) => end({ type: 'failed', code, message }),
    gaveUp: () => end({ type: 'cancelled' }),
    stored: () =>
      new Promise((resolve) => {
        release = resolve;
      }),
    release: () => release(),
  };
  running.set(id, call);
  methods[method](params, parts, call);
}

function hear({ parts: lengths = [], file, ...header }, tail) {
  if (file !== undefined) {
    tail = readFileSync(join(scratch, file));
    unlinkSync(join(scratch, file));
  }
  let at = 0;
  const parts = lengths.map((length) => {
    at += length;
    return tail.subarray(at - length, at);
  });
  const { type, id } = header;
  if (type === 'call') begin(header, parts);
  else if (type === 'cancel') {
    const call = running.get(id);
    if (call !== undefined) {
      call.cancelled = true;
      call.release();
    }
  } else if (type === 'stored') running.get(id)?.release();
  else if (type === 'stop') {
    if (mode === 'does not stop') return;
    for (const call of running.values()) call.failed('ENGINE_CLOSED', 'closed');
    send({ type: 'stopped' });
    process.exit(0);
  }
}

if (mode === 'does not start') {
  process.stderr.write('ModuleNotFoundError: no module named torch\n');
  process.exit(1);
}
let held = Buffer.alloc(0);
process.stdin.on('data', (chunk) => {
  held = Buffer.concat([held, chunk]);
  while (held.length >= 8) {
    const [head, tail] = [held.readUInt32LE(0), held.readUInt32LE(4)];
    if (held.length < 8 + head + tail) return;
    const frame = held.subarray(8, 8 + head + tail);
    held = held.subarray(8 + head + tail);
    hear(JSON.parse(frame.subarray(0, head).toString()), frame.subarray(head));
  }
});
process.stdin.on('end', () => process.exit(mode === 'does not stop' ? undefined : 0));
if (mode !== 'silent') {
  const protocol = mode === 'another protocol' ? 3 : 2;
  send({ type: 'hello', protocol, engine: '0', python: '3', torch: '2', transformers: '5', gpus: [] });
}
setInterval(() => send({ type: 'beat', busy: 0, ...figures }), 100);
