"""The numbers of the embedded engine, to the bit: what its own code gave is written here."""

import numpy as np

from openledger_torch.random import Random, _step, shuffled, split_mix64


def test_split_mix64_is_the_published_one():
    # Vigna's splitmix64.c, seeds 0 and 1234567.
    assert split_mix64(0, 0) == 0xE220A8397B1DCDAF
    assert [split_mix64(1234567, i) for i in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_order_is_the_embedded_engines():
    assert shuffled(11, Random(2**64 - 1, 1024)) == [0, 5, 10, 4, 3, 9, 1, 7, 2, 8, 6]


def test_lanes_give_the_stream():
    for count in (4096, 5000, 33_333, 100_001):
        fast, slow = Random(7, 1), Random(7, 1)
        drawn = fast.next(count)
        assert (drawn == np.array([_step(slow._state)[0] for _ in range(count)], dtype=np.uint32)).all()
        assert (fast.next(5) == slow.next(5)).all(), "and goes on from there"
