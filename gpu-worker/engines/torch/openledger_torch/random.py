"""
The numbers that the embedded engine draws (`seeded.ts`, `random.ts`), drawn again: SplitMix64 (Steele, Lea & Flood 2014)
and xoshiro128** (Blackman & Vigna 2018), so that one seed gives one training in both engines.
"""

from __future__ import annotations

import numpy as np

MASK64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1


def split_mix64(seed: int, index: int) -> int:
    """The `index`-th output (from 0) of SplitMix64 started at `seed`."""
    z = (seed + 0x9E3779B97F4A7C15 * (index + 1)) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def uniform53(seed: int, index: int) -> float:
    """[0, 1) in steps of 2^−53: what a request's `index`-th token is sampled with."""
    return (split_mix64(seed, index) >> 11) / 2**53


def _step(s: np.ndarray) -> np.ndarray:
    """One step of xoshiro128** of states `[4, lanes]` (uint32), in place; the outputs `[lanes]`."""
    out = s[1] * np.uint32(5)
    out = ((out << np.uint32(7)) | (out >> np.uint32(25))) * np.uint32(9)
    shifted = s[1] << np.uint32(9)
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= shifted
    s[3] = (s[3] << np.uint32(11)) | (s[3] >> np.uint32(21))
    return out


def _bits(states: np.ndarray) -> np.ndarray:
    """`[4, lanes]` words as `[128, lanes]` bits."""
    return ((states[:, None, :] >> np.arange(32, dtype=np.uint32)[None, :, None]) & 1).reshape(128, -1).astype(np.float32)


def _words(bits: np.ndarray) -> np.ndarray:
    weights = (np.uint32(1) << np.arange(32, dtype=np.uint32))[None, :, None]
    return (bits.reshape(4, 32, -1).astype(np.uint32) * weights).sum(axis=1, dtype=np.uint32)


class Random:
    """A stream of 32-bit numbers; `stream` tells apart what is drawn with one seed."""

    def __init__(self, seed: int, stream: int) -> None:
        key = split_mix64(seed & MASK64, stream)
        low, high = split_mix64(key, 0), split_mix64(key, 1)
        words = [low & MASK32, low >> 32, high & MASK32, (high >> 32) | 1]
        self._state = np.array(words, dtype=np.uint32).reshape(4, 1)

    def next(self, count: int) -> np.ndarray:
        """The next `count` numbers (uint32). Many are drawn in lanes: the step is linear over GF(2), so that the state
        any number of steps on is a product of 128 × 128 bit matrices."""
        if count < 4096:
            return np.array([_step(self._state)[0] for _ in range(count)], dtype=np.uint32)
        lanes = 1 << max(1, int(count**0.5).bit_length() - 1)
        length = -(-count // lanes)
        states = self._state
        jump = self._power(length)
        # Lanes double: those behind are those before, `length` times their number of steps on.
        while states.shape[1] < lanes:
            states = np.concatenate([states, _words((jump @ _bits(states)) % 2)], axis=1)
            jump = (jump @ jump) % 2
        states = states.copy()
        out = np.empty((length, lanes), dtype=np.uint32)
        rest = count - (lanes - 1) * length
        for i in range(length):
            if i == rest:
                # The last lane stands where the stream is to go on from.
                self._state = states[:, -1:].copy()
            out[i] = _step(states)
        if rest == length:
            self._state = states[:, -1:].copy()
        return out.T.reshape(-1)[:count]

    def _power(self, steps: int) -> np.ndarray:
        """The matrix of `steps` steps. Entries are 0 or 1 in float32: sums of 128 products are exact."""
        identity = _words(np.eye(128, dtype=np.float32))
        base = identity.copy()
        _step(base)
        square, power = _bits(base), np.eye(128, dtype=np.float32)
        while steps > 0:
            if steps & 1:
                power = (square @ power) % 2
            square = (square @ square) % 2
            steps >>= 1
        return power

    def units(self, count: int) -> np.ndarray:
        """[0, 1) in steps of 2^−24, float64."""
        return (self.next(count) >> np.uint32(8)).astype(np.float64) / 2**24


def shuffled(count: int, source: Random) -> list[int]:
    """0 … count − 1 in random order (Fisher & Yates), by Lemire's multiplication as the embedded engine does it."""
    order = list(range(count))
    draws = source.next(max(0, count - 1)).tolist()
    for i, draw in zip(range(count - 1, 0, -1), draws):
        j = int(draw / 2**32 * (i + 1))
        order[i], order[j] = order[j], order[i]
    return order
