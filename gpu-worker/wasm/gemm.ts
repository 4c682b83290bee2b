/**
 * `C[m][n] = (C[m][n] +) alpha · Σ_k A[m][k]·B[k][n]`, in float32.
 *
 * Every sum runs over k in ascending order in one accumulator, whatever the tile: a row of C does not depend on how
 * many other rows are computed with it. Hence a token's logits are the same to the last bit in a batch or alone,
 * decoded or read as a whole, and a record's gradient the same whichever records it is computed with.
 *
 * B has n contiguous, in tiles of 8 columns that may lie apart (packed weights: `tile` = 32·K, `row` = 32; a plain matrix:
 * `tile` = 32, `row` = its row stride). A may be strided both ways, so that `XᵀY` needs no transposition.
 */
import {
  type Code,
  f32x4,
  get,
  i32,
  increase,
  int,
  type Kernel,
  kernel,
  type Local,
  loop,
  otherwise,
  quad,
  repeat,
  seq,
  set,
  store,
  v128,
  when,
} from './assembler.ts';

/** Parameters: M, N (multiple of 4), K (≥ 1), a, aRow, aStep, b, bTile, bRow, c, cRow, alpha, add (0 or 1); bytes. */
export function gemmKernel(): Kernel {
  const i = 'i32' as const;
  return kernel([i, i, i, i, i, i, i, i, i, i, i, 'f32', i], (parameters, frame) => {
    const [m, n, k, a, aRow, aStep, b, bTile, bRow, c, cRow, alpha, add] = parameters as Locals13;
    const ints = Array.from({ length: 12 }, () => frame.local('i32'));
    const [bAt, cAt, left, columns, pb, pc, kLeft, aAt] = ints as [
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
      Local,
    ];
    const rows = ints.slice(8, 12);
    const sums = Array.from({ length: 8 }, () => frame.local('v128'));
    const [b0, b1, splat, scale] = Array.from({ length: 4 }, () => frame.local('v128')) as [Local, Local, Local, Local];

    /** Rows `count` by `vectors`·4 columns, and on to the next rows. */
    const tile = (count: number, vectors: 1 | 2): Code => {
      const sum = (r: number, v: number): Local => sums[r * 2 + v]!;
      const each = (body: (r: number, v: number) => Code): Code =>
        seq(...Array.from({ length: count }, (_, r) => seq(...Array.from({ length: vectors }, (_, v) => body(r, v)))));
      const rowAt = (r: number): Code => (r === 0 ? get(aAt) : i32.add(get(rows[r - 1]!), get(aRow)));
      const step = (aOffset: number, bOffset: number): Code =>
        seq(
          set(b0, v128.load(get(pb), bOffset)),
          vectors === 2 ? set(b1, v128.load(get(pb), bOffset + 16)) : [],
          ...Array.from({ length: count }, (_, r) =>
            seq(
              set(splat, v128.loadSplat(get(rows[r]!), aOffset)),
              ...[b0, b1]
                .slice(0, vectors)
                .map((of, v) => set(sum(r, v), f32x4.add(get(sum(r, v)), f32x4.mul(get(splat), get(of))))),
            ),
          ),
        );
      const plain = seq(
        set(kLeft, get(k)),
        repeat(
          seq(
            step(0, 0),
            ...Array.from({ length: count }, (_, r) => increase(rows[r]!, get(aStep))),
            increase(pb, get(bRow)),
            set(kLeft, i32.sub(get(kLeft), int(1))),
          ),
          get(kLeft),
        ),
      );
      // Contiguous A and packed B: four steps a round with constant offsets.
      const unrolled = seq(
        set(kLeft, get(k)),
        repeat(
          seq(
            ...[0, 1, 2, 3].map((u) => step(4 * u, 32 * u)),
            ...Array.from({ length: count }, (_, r) => increase(rows[r]!, int(16))),
            increase(pb, int(128)),
            set(kLeft, i32.sub(get(kLeft), int(4))),
          ),
          get(kLeft),
        ),
      );
      const packed = i32.eqz(
        // K a multiple of 4, and both strides as they are in packed operands.
        seq(i32.add(i32.add(i32.and(get(k), int(3)), notEqual(get(aStep), 4)), notEqual(get(bRow), 32))),
      );
      return seq(
        each((r, v) => set(sum(r, v), quad(0))),
        ...Array.from({ length: count }, (_, r) => set(rows[r]!, rowAt(r))),
        set(pb, get(bAt)),
        otherwise(packed, unrolled, plain),
        otherwise(
          get(add),
          seq(
            ...Array.from({ length: count }, (_, r) =>
              seq(
                ...Array.from({ length: vectors }, (_, v) =>
                  store(get(pc), f32x4.add(v128.load(get(pc), 16 * v), f32x4.mul(get(sum(r, v)), get(scale))), 16 * v),
                ),
                increase(pc, get(cRow)),
              ),
            ),
          ),
          seq(
            ...Array.from({ length: count }, (_, r) =>
              seq(
                ...Array.from({ length: vectors }, (_, v) =>
                  store(get(pc), f32x4.mul(get(sum(r, v)), get(scale)), 16 * v),
                ),
                increase(pc, get(cRow)),
              ),
            ),
          ),
        ),
        set(left, i32.sub(get(left), int(count))),
        set(aAt, i32.add(get(aAt), i32.mul(get(aRow), int(count)))),
      );
    };

    const allRows = (vectors: 1 | 2): Code =>
      seq(
        loop(i32.geU(get(left), int(4)), tile(4, vectors)),
        when(i32.geU(get(left), int(2)), tile(2, vectors)),
        when(get(left), tile(1, vectors)),
      );
    return seq(
      set(scale, f32x4.splat(get(alpha))),
      set(bAt, get(b)),
      set(cAt, get(c)),
      set(columns, get(n)),
      loop(
        get(columns),
        set(left, get(m)),
        set(aAt, get(a)),
        set(pc, get(cAt)),
        otherwise(
          i32.geU(get(columns), int(8)),
          seq(allRows(2), set(columns, i32.sub(get(columns), int(8)))),
          seq(allRows(1), set(columns, int(0))),
        ),
        increase(bAt, get(bTile)),
        increase(cAt, int(32)),
      ),
    );
  });
}

type Locals13 = [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
const notEqual = (value: Code, constant: number): Code => [...value, ...int(constant), 0x47];
