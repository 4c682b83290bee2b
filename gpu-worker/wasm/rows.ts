/**
 * What is done row by row or entry by entry: normalisation, rotary positions, softmax, the gated unit, cross-entropy, and
 * their derivatives. Strides and addresses are in bytes, counts in entries (multiples of 4 unless said). Sums run in four
 * lanes, lane = index mod 4, so they depend on the row alone.
 */
import {
  type Code,
  each,
  type Frame,
  f32,
  f32x4,
  float,
  get,
  i32,
  i32x4,
  increase,
  int,
  type Kernel,
  kernel,
  type Local,
  quad,
  quadInt,
  seq,
  set,
  store,
  storeFloat,
  v128,
} from './assembler.ts';

const I = 'i32' as const;
const bytes = (count: Local): Code => i32.shl(get(count), int(2));
const fold = (sum: Local): Code =>
  f32.add(
    f32.add(f32x4.lane(get(sum), 0), f32x4.lane(get(sum), 1)),
    f32.add(f32x4.lane(get(sum), 2), f32x4.lane(get(sum), 3)),
  );
const foldMax = (best: Local): Code =>
  f32.max(
    f32.max(f32x4.lane(get(best), 0), f32x4.lane(get(best), 1)),
    f32.max(f32x4.lane(get(best), 2), f32x4.lane(get(best), 3)),
  );

/**
 * e^x: x = n·ln 2 + r with |r| ≤ ½·ln 2, the series of e^r to the 7th power (remainder below 6·10⁻⁹), times 2ⁿ. Below
 * −87 it is 0, above 88 it is e^88. Relative error about 10⁻⁷.
 */
function exponential(x: Local, r: Local, n: Local): Code {
  const coefficients = [1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1];
  let series: Code = quad(1 / 5040);
  for (const coefficient of coefficients) series = f32x4.add(f32x4.mul(series, get(r)), quad(coefficient));
  return seq(
    set(r, f32x4.min(f32x4.max(get(x), quad(-87)), quad(88))),
    set(n, f32x4.nearest(f32x4.mul(get(r), quad(Math.LOG2E)))),
    // ln 2 in two parts: the first has few enough bits that n times it is exact.
    set(r, f32x4.sub(get(r), f32x4.mul(get(n), quad(0.693359375)))),
    set(r, f32x4.sub(get(r), f32x4.mul(get(n), quad(Math.LN2 - 0.693359375)))),
    set(r, f32x4.mul(series, i32x4.shl(i32x4.add(i32x4.fromFloat(get(n)), quadInt(127)), int(23)))),
    set(x, v128.andNot(get(r), f32x4.lt(get(x), quad(-87)))),
  );
}

/** x, weight, y, inverse roots (one a row), rows, width, eps: `y = x / rms(x) · weight`. */
const rmsNorm = kernel([I, I, I, I, I, I, 'f32'], (parameters, frame) => {
  const [x, weight, y, roots, rows, width, eps] = parameters as L7;
  const [row, at, end] = locals(frame, 'i32', 3) as L3;
  const [sum, root, value] = locals(frame, 'v128', 3) as L3;
  const inverse = frame.local('f32');
  return each(
    row,
    int(0),
    get(rows),
    int(1),
    set(end, bytes(width)),
    set(sum, quad(0)),
    each(
      at,
      int(0),
      get(end),
      int(16),
      set(value, v128.load(i32.add(get(x), get(at)))),
      set(sum, f32x4.add(get(sum), f32x4.mul(get(value), get(value)))),
    ),
    set(inverse, f32.div(float(1), f32.sqrt(f32.add(f32.div(fold(sum), f32.fromU(get(width))), get(eps))))),
    storeFloat(get(roots), get(inverse)),
    set(root, f32x4.splat(get(inverse))),
    each(
      at,
      int(0),
      get(end),
      int(16),
      store(
        i32.add(get(y), get(at)),
        f32x4.mul(f32x4.mul(v128.load(i32.add(get(x), get(at))), get(root)), v128.load(i32.add(get(weight), get(at)))),
      ),
    ),
    increase(x, get(end)),
    increase(y, get(end)),
    increase(roots, int(4)),
  );
});

/** x, weight, inverse roots, dy, dx, rows, width: `dx += ρ·(w∘dy) − x·ρ³/width·Σ w∘dy∘x`. */
const rmsNormBackward = kernel([I, I, I, I, I, I, I], (parameters, frame) => {
  const [x, weight, roots, dy, dx, rows, width] = parameters as L7;
  const [row, at, end] = locals(frame, 'i32', 3) as L3;
  const [sum, root, factor] = locals(frame, 'v128', 3) as L3;
  const inverse = frame.local('f32');
  const weighted = f32x4.mul(v128.load(i32.add(get(dy), get(at))), v128.load(i32.add(get(weight), get(at))));
  return each(
    row,
    int(0),
    get(rows),
    int(1),
    set(end, bytes(width)),
    set(sum, quad(0)),
    each(
      at,
      int(0),
      get(end),
      int(16),
      set(sum, f32x4.add(get(sum), f32x4.mul(weighted, v128.load(i32.add(get(x), get(at)))))),
    ),
    set(inverse, f32.load(get(roots))),
    set(root, f32x4.splat(get(inverse))),
    set(
      factor,
      f32x4.splat(
        f32.div(f32.mul(fold(sum), f32.mul(f32.mul(get(inverse), get(inverse)), get(inverse))), f32.fromU(get(width))),
      ),
    ),
    each(
      at,
      int(0),
      get(end),
      int(16),
      store(
        i32.add(get(dx), get(at)),
        f32x4.add(
          v128.load(i32.add(get(dx), get(at))),
          f32x4.sub(f32x4.mul(get(root), weighted), f32x4.mul(v128.load(i32.add(get(x), get(at))), get(factor))),
        ),
      ),
    ),
    increase(x, get(end)),
    increase(dy, get(end)),
    increase(dx, get(end)),
    increase(roots, int(4)),
  );
});

/**
 * x, cosines, sines, rows, row stride of x, heads, half of the head's size, sign: turns each head's halves in place; row i takes
 * row i of the tables (half entries each). Sign −1 turns back, which is the derivative.
 */
const rotary = kernel([I, I, I, I, I, I, I, 'f32'], (parameters, frame) => {
  const [x, cosines, sines, rows, stride, heads, half, sign] = parameters as L8;
  const [row, head, at, size, first] = locals(frame, 'i32', 5) as L5;
  const [low, high, cosine, sine, turn] = locals(frame, 'v128', 5) as L5;
  return seq(
    set(size, bytes(half)),
    set(turn, f32x4.splat(get(sign))),
    each(
      row,
      int(0),
      get(rows),
      int(1),
      set(first, get(x)),
      each(
        head,
        int(0),
        get(heads),
        int(1),
        each(
          at,
          int(0),
          get(size),
          int(16),
          set(low, v128.load(i32.add(get(first), get(at)))),
          set(high, v128.load(i32.add(i32.add(get(first), get(size)), get(at)))),
          set(cosine, v128.load(i32.add(get(cosines), get(at)))),
          set(sine, f32x4.mul(v128.load(i32.add(get(sines), get(at))), get(turn))),
          store(
            i32.add(get(first), get(at)),
            f32x4.sub(f32x4.mul(get(low), get(cosine)), f32x4.mul(get(high), get(sine))),
          ),
          store(
            i32.add(i32.add(get(first), get(size)), get(at)),
            f32x4.add(f32x4.mul(get(high), get(cosine)), f32x4.mul(get(low), get(sine))),
          ),
        ),
        increase(first, i32.shl(get(size), int(1))),
      ),
      increase(x, get(stride)),
      increase(cosines, get(size)),
      increase(sines, get(size)),
    ),
  );
});

/**
 * x, rows, stride, entries of the first row that count (one more each further row; any number), columns: in place, the
 * softmax of `scale·x` over those that count, 0 behind them.
 */
const softmax = kernel([I, I, I, I, I, 'f32'], (parameters, frame) => {
  const [x, rows, stride, first, columns, scale] = parameters as L6;
  const [row, at, end, wide] = locals(frame, 'i32', 4) as L4;
  const [best, sum, value, r, n, factor] = locals(frame, 'v128', 6) as L6;
  const here = i32.add(get(x), get(at));
  return seq(
    set(factor, f32x4.splat(get(scale))),
    each(
      row,
      int(0),
      get(rows),
      int(1),
      set(end, i32.shl(i32.add(get(first), get(row)), int(2))),
      set(wide, i32.and(i32.add(get(end), int(15)), int(-16))),
      each(at, get(end), get(wide), int(4), storeFloat(here, float(Number.NEGATIVE_INFINITY))),
      set(best, quad(Number.NEGATIVE_INFINITY)),
      each(
        at,
        int(0),
        get(wide),
        int(16),
        set(value, f32x4.mul(v128.load(here), get(factor))),
        store(here, get(value)),
        set(best, f32x4.max(get(best), get(value))),
      ),
      set(best, f32x4.splat(foldMax(best))),
      set(sum, quad(0)),
      each(
        at,
        int(0),
        get(wide),
        int(16),
        set(value, f32x4.sub(v128.load(here), get(best))),
        exponential(value, r, n),
        store(here, get(value)),
        set(sum, f32x4.add(get(sum), get(value))),
      ),
      set(sum, f32x4.splat(f32.div(float(1), fold(sum)))),
      each(at, int(0), get(wide), int(16), store(here, f32x4.mul(v128.load(here), get(sum)))),
      each(at, get(wide), bytes(columns), int(16), store(here, quad(0))),
      increase(x, get(stride)),
    ),
  );
});

/** p, dp, rows, stride, columns: in place of dp, `scale·p∘(dp − Σ p∘dp)`. */
const softmaxBackward = kernel([I, I, I, I, I, 'f32'], (parameters, frame) => {
  const [p, dp, rows, stride, columns, scale] = parameters as L6;
  const [row, at, end] = locals(frame, 'i32', 3) as L3;
  const [sum, factor] = locals(frame, 'v128', 2) as [Local, Local];
  const share = v128.load(i32.add(get(p), get(at)));
  const slope = v128.load(i32.add(get(dp), get(at)));
  return seq(
    set(factor, f32x4.splat(get(scale))),
    set(end, bytes(columns)),
    each(
      row,
      int(0),
      get(rows),
      int(1),
      set(sum, quad(0)),
      each(at, int(0), get(end), int(16), set(sum, f32x4.add(get(sum), f32x4.mul(share, slope)))),
      set(sum, f32x4.splat(fold(sum))),
      each(
        at,
        int(0),
        get(end),
        int(16),
        store(i32.add(get(dp), get(at)), f32x4.mul(f32x4.mul(share, f32x4.sub(slope, get(sum))), get(factor))),
      ),
      increase(p, get(stride)),
      increase(dp, get(stride)),
    ),
  );
});

/** `value` becomes 1 / (1 + e^−gate). */
const sigmoid = (value: Local, gate: Local, r: Local, n: Local): Code =>
  seq(
    set(value, f32x4.sub(quad(0), get(gate))),
    exponential(value, r, n),
    set(value, f32x4.div(quad(1), f32x4.add(quad(1), get(value)))),
  );

/** gate, up, out, count: `out = gate·σ(gate)·up`. */
const gated = kernel([I, I, I, I], (parameters, frame) => {
  const [gate, up, out, count] = parameters as L4;
  const at = frame.local('i32');
  const [g, s, r, n] = locals(frame, 'v128', 4) as L4;
  return each(
    at,
    int(0),
    bytes(count),
    int(16),
    set(g, v128.load(i32.add(get(gate), get(at)))),
    sigmoid(s, g, r, n),
    store(i32.add(get(out), get(at)), f32x4.mul(f32x4.mul(get(g), get(s)), v128.load(i32.add(get(up), get(at))))),
  );
});

/** gate, up, d, dGate, dUp, count: derivatives of `gated` by its inputs, given d by its output. */
const gatedBackward = kernel([I, I, I, I, I, I], (parameters, frame) => {
  const [gate, up, d, dGate, dUp, count] = parameters as L6;
  const at = frame.local('i32');
  const [g, s, r, n, slope] = locals(frame, 'v128', 5) as L5;
  return each(
    at,
    int(0),
    bytes(count),
    int(16),
    set(g, v128.load(i32.add(get(gate), get(at)))),
    set(slope, v128.load(i32.add(get(d), get(at)))),
    sigmoid(s, g, r, n),
    // The up side first: `dGate` may be where `up` was read from.
    set(r, v128.load(i32.add(get(up), get(at)))),
    store(i32.add(get(dUp), get(at)), f32x4.mul(get(slope), f32x4.mul(get(g), get(s)))),
    store(
      i32.add(get(dGate), get(at)),
      f32x4.mul(
        f32x4.mul(get(slope), get(r)),
        f32x4.mul(get(s), f32x4.add(quad(1), f32x4.mul(get(g), f32x4.sub(quad(1), get(s))))),
      ),
    ),
  );
});

/**
 * x, rows, stride, vocabulary (any number), factors (one a row), out: x becomes factor·softmax(x), and out gets each row's
 * largest logit and its Σ e^(x − largest), of which the loss is made.
 */
const crossEntropy = kernel([I, I, I, I, I, I], (parameters, frame) => {
  const [x, rows, stride, vocabulary, factors, out] = parameters as L6;
  const [row, at, end, wide] = locals(frame, 'i32', 4) as L4;
  const [best, sum, value, r, n] = locals(frame, 'v128', 5) as L5;
  const total = frame.local('f32');
  const here = i32.add(get(x), get(at));
  return each(
    row,
    int(0),
    get(rows),
    int(1),
    set(end, bytes(vocabulary)),
    set(wide, i32.and(i32.add(get(end), int(15)), int(-16))),
    each(at, get(end), get(wide), int(4), storeFloat(here, float(Number.NEGATIVE_INFINITY))),
    set(best, quad(Number.NEGATIVE_INFINITY)),
    each(at, int(0), get(wide), int(16), set(best, f32x4.max(get(best), v128.load(here)))),
    set(best, f32x4.splat(foldMax(best))),
    storeFloat(get(out), f32x4.lane(get(best), 0)),
    set(sum, quad(0)),
    each(
      at,
      int(0),
      get(wide),
      int(16),
      set(value, f32x4.sub(v128.load(here), get(best))),
      exponential(value, r, n),
      store(here, get(value)),
      set(sum, f32x4.add(get(sum), get(value))),
    ),
    set(total, fold(sum)),
    storeFloat(get(out), get(total), 4),
    set(sum, f32x4.splat(f32.div(f32.load(get(factors)), get(total)))),
    each(at, int(0), get(wide), int(16), store(here, f32x4.mul(v128.load(here), get(sum)))),
    increase(x, get(stride)),
    increase(factors, int(4)),
    increase(out, int(8)),
  );
});

/** y, x, count: `y += x`. */
const add = kernel([I, I, I], (parameters, frame) => {
  const [y, x, count] = parameters as L3;
  const at = frame.local('i32');
  const there = i32.add(get(y), get(at));
  return each(
    at,
    int(0),
    bytes(count),
    int(16),
    store(there, f32x4.add(v128.load(there), v128.load(i32.add(get(x), get(at))))),
  );
});

/** from, its row stride, to, its row stride, rows, columns (any numbers): `to[c][r] = from[r][c]`. */
const transpose = kernel([I, I, I, I, I, I], (parameters, frame) => {
  const [from, fromStride, to, toStride, rows, columns] = parameters as L6;
  const [row, column, read, write] = locals(frame, 'i32', 4) as L4;
  return each(
    row,
    int(0),
    get(rows),
    int(1),
    set(read, get(from)),
    set(write, i32.add(get(to), bytes(row))),
    each(
      column,
      int(0),
      get(columns),
      int(1),
      storeFloat(get(write), f32.load(get(read))),
      increase(read, int(4)),
      increase(write, get(toStride)),
    ),
    increase(from, get(fromStride)),
  );
});

export const ROW_KERNELS = {
  ...{ rmsNorm, rmsNormBackward, rotary, softmax, softmaxBackward, gated, gatedBackward, crossEntropy, add, transpose },
} as const satisfies Record<string, Kernel>;

function locals(frame: Frame, type: 'i32' | 'v128', count: number): Local[] {
  return Array.from({ length: count }, () => frame.local(type));
}
type L3 = [Local, Local, Local];
type L4 = [...L3, Local];
type L5 = [...L4, Local];
type L6 = [...L5, Local];
type L7 = [...L6, Local];
type L8 = [...L7, Local];
