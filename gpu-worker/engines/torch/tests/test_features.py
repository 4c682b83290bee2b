"""The way from a gradient to its feature, against its formulas written out in float64."""

import numpy as np
import pytest
import torch
from conftest import DEVICE

from openledger_torch.eigenbases import Layout, Turn, divisors, eigenbases_of, symmetric_eigen
from openledger_torch.errors import EngineFault
from openledger_torch.features import Eigenbases, Features
from openledger_torch.sketches import Sketch, principal_directions, project, split_mix64

MASK = (1 << 64) - 1
#: Shapes of which some come again, hidden sides that blocks of 5 fit and do not fit, one narrower than a block.
LAYOUT = Layout(((2, 10), (3, 7), (2, 10), (3, 4), (2, 7), (3, 7)), 5)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blocks_of(hidden, block):
    return [(start, min(block, hidden - start)) for start in range(0, hidden, block)]


def some_covariances(layout, seed=5):
    """Flat sides in float64, and the same as matrices."""
    flat, whole = [], []
    for at, (rank, hidden) in enumerate(layout.shapes):
        x = drawn(40, rank, seed=seed + 7 * at) @ torch.diag(torch.arange(1.0, rank + 1, dtype=torch.float64))
        y = drawn(40, hidden, seed=seed + 7 * at + 1) * torch.linspace(0.2, 3, hidden, dtype=torch.float64)
        ranks, hiddens = x.T @ x, y.T @ y
        pieces = [hiddens[a : a + w, a : a + w] for a, w in blocks_of(hidden, layout.block)]
        flat.append((ranks.flatten(), torch.cat([piece.flatten() for piece in pieces])))
        whole.append((ranks, pieces))
    return flat, whole


def turned_plainly(layout, rank, hidden, row):
    """One gradient, a matrix after the other, in float64."""
    out, at = [], 0
    for m, (r, h) in enumerate(layout.shapes):
        g = row[at : at + r * h].double().view(r, h)
        at += r * h
        half = rank[m].double().view(r, r) @ g
        parts, cut = [], 0
        for start, width in blocks_of(h, layout.block):
            basis = hidden[m][cut : cut + width * width].double().view(width, width)
            cut += width * width
            parts.append(half[:, start : start + width] @ basis.T)
        out.append(torch.cat(parts, dim=1).flatten())
    return torch.cat(out)


def mixed(seed, index):
    z = (seed + 0x9E3779B97F4A7C15 * (index + 1)) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def sketched_plainly(seed, width, values):
    out = torch.zeros(width, dtype=torch.float64)
    for j, value in enumerate(values.tolist()):
        h = mixed(seed, j)
        out[h % width] += -value if h >> 63 else value
    return out


def apart(a, b):
    a, b = a.cpu().double(), b.cpu().double()
    return float((a - b).norm() / b.norm())


def bases_of(layout):
    """Made on the device, then on the CPU."""
    flat = some_covariances(layout)[0]
    return tuple([each.cpu() for each in side] for side in eigenbases_of(layout, [(a.to(DEVICE), b.to(DEVICE)) for a, b in flat]))


def test_eigenbases_are_those_of_each_block():
    _, whole = some_covariances(LAYOUT)
    rank, hidden = bases_of(LAYOUT)
    for m, (r, h) in enumerate(LAYOUT.shapes):
        ranks, pieces = whole[m]
        sides = [(rank[m].view(r, r), ranks)]
        cut = 0
        for (_, width), piece in zip(blocks_of(h, LAYOUT.block), pieces):
            sides.append((hidden[m][cut : cut + width * width].view(width, width), piece))
            cut += width * width
        assert cut == hidden[m].numel() == LAYOUT.hidden_entries(m)
        for vectors, matrix in sides:
            assert vectors.dtype == torch.float32
            vectors = vectors.double()
            assert (vectors @ vectors.T - torch.eye(len(vectors))).abs().max() < 1e-6
            across = vectors @ matrix @ vectors.T
            values = across.diagonal()
            assert (across - values.diag()).abs().max() < 1e-5 * values.max()
            assert bool((values.diff() >= -1e-5 * values.max()).all()), "ascending"
            for vector in vectors:
                assert vector[vector.abs().argmax()] > 0


def test_eigenbases_of_what_says_nothing_or_lies():
    layout = Layout(((2, 3),), 2)
    blank = [(torch.zeros(4, dtype=torch.float64), torch.zeros(5, dtype=torch.float64))]
    (rank,), (hidden,) = eigenbases_of(layout, blank)
    assert torch.equal(rank.view(2, 2) @ rank.view(2, 2).T, torch.eye(2)) and hidden[-1] == 1
    tiny = torch.tensor([[2e-200, 0], [1e-200, 2e-200]], dtype=torch.float64)
    values, vectors = symmetric_eigen(tiny)
    assert torch.allclose(values, torch.tensor([1e-200, 3e-200], dtype=torch.float64), rtol=1e-12, atol=0)
    assert torch.allclose(vectors.abs(), torch.full((2, 2), 0.5**0.5, dtype=torch.float64))
    for wrong in (
        [],
        [(torch.zeros(3), torch.zeros(5))],
        [(torch.zeros(4), torch.zeros(4))],
        [(torch.full((4,), float("nan")), torch.zeros(5))],
    ):
        with pytest.raises(EngineFault, match="entries|covariances") as caught:
            eigenbases_of(layout, wrong)
        assert caught.value.code == "BAD_REQUEST"


#: Three layers, all alike.
LAYERS = Layout(LAYOUT.shapes * 3, 5)


@pytest.mark.parametrize("layout", [LAYOUT, LAYERS, Layout(((2, 9),) * 4, 3)])
@pytest.mark.parametrize("n", [1, 4])
def test_rows_are_turned_matrix_by_matrix(n, layout):
    assert len(layout.shapes) // layout.period == {LAYOUT: 1, LAYERS: 3}.get(layout, 4)
    rank, hidden = bases_of(layout)
    turn = Turn(layout, rank, hidden, DEVICE)
    rows = drawn(n, layout.size).float()
    got = turn(rows.to(DEVICE))
    want = torch.stack([turned_plainly(layout, rank, hidden, row) for row in rows])
    assert got.shape == rows.shape and got.dtype == torch.float32
    assert apart(got, want) < 1e-6
    assert apart(got.norm(dim=1), rows.norm(dim=1)) < 1e-6, "a turn keeps lengths"
    assert turn(rows[:0].to(DEVICE)).shape == (0, layout.size)
    with pytest.raises(EngineFault, match="entries belong"):
        turn(rows[:, 1:].to(DEVICE))


def test_divisors_have_a_floor_of_each_matrix():
    layout = Layout(((1, 3), (2, 2), (1, 2)), 2)
    moments = torch.tensor([4.0, 0, 2, 0, 0, 0, 0, 1e-12, 3e-12])
    got = divisors(layout, moments.to(DEVICE), 0.5).cpu()
    want = [5**-0.5, 1, 3**-0.5, 0, 0, 0, 0, (1e-12 + 1e-12) ** -0.5, (3e-12 + 1e-12) ** -0.5]
    assert got.dtype == torch.float64
    assert torch.allclose(got, torch.tensor(want, dtype=torch.float64), rtol=1e-6)
    for moments, damping in ((-moments, 0.5), (moments, 0.0), (moments[1:], 0.5), (moments * float("inf"), 0.5)):
        with pytest.raises(EngineFault):
            divisors(layout, moments, damping)


def test_places_are_split_mix_64():
    for seed in (0, 5, 2**63 + 11, 2**64 - 1):
        for start in (0, 7, 2**31 - 2):
            got = split_mix64(seed, start, 40, DEVICE).tolist()
            assert [each & MASK for each in got] == [mixed(seed, start + i) for i in range(40)]


@pytest.mark.parametrize(("size", "width"), [(500, 8), (500, 1024), (1, 1)])
def test_sketches_sum_signed_entries_up(size, width):
    factors = drawn(size, seed=2).abs()
    rows = drawn(5, size, seed=3).float()
    sketch = Sketch(2**64 - 9, width, factors.to(DEVICE))
    moved = rows.to(DEVICE)
    got = sketch(moved)
    want = torch.stack([sketched_plainly(2**64 - 9, width, row.double() * factors) for row in rows])
    assert apart(got, want) < 1e-6
    assert torch.equal(sketch(moved[2:3]), got[2:3]), "the same bits in whatever company"
    assert sketch(moved[:0]).shape == (0, width)


def test_sketches_of_other_widths_are_refused():
    for width in (0, 3, 1 << 31, "8"):
        with pytest.raises(EngineFault, match="no power of two"):
            Sketch(1, width, torch.ones(4, dtype=torch.float64))
    with pytest.raises(EngineFault, match="entries belong"):
        Sketch(1, 4, torch.ones(4, dtype=torch.float64))(torch.ones(1, 5))


def test_directions_are_the_right_singular_vectors():
    # Rows of lengths far apart, of rank 6, one of them zero, one there twice.
    rows = drawn(9, 6, seed=4) @ torch.diag(torch.tensor([9.0, 5, 3, 2, 1, 0.5], dtype=torch.float64)) @ drawn(6, 64, seed=5)
    rows = rows * torch.logspace(-3, 3, 9, dtype=torch.float64)[:, None]
    rows[3] = 0
    rows[7] = rows[2]
    vectors, energy = (each.cpu() for each in principal_directions(rows.float().to(DEVICE), 8))
    unit = rows / rows.norm(dim=1, keepdim=True)
    unit[3] = 0
    values, right = np.linalg.svd(unit.numpy())[1:]
    assert vectors.dtype == torch.float32 and not bool(vectors[6:].any()) and not bool(energy[6:].any())
    assert apart(energy[:6], torch.tensor(values[:6] ** 2 / (values**2).sum())) < 1e-4
    kept = vectors[:6].double()
    assert (kept @ kept.T - torch.eye(6)).abs().max() < 1e-6
    for vector, want in zip(kept, right):
        assert abs(float(vector @ torch.tensor(want))) > 1 - 1e-5
    again = project(rows.float(), vectors)
    assert apart(again, rows @ vectors.double().T) < 1e-6
    assert torch.allclose(again.double().square().sum(1), rows.square().sum(1), rtol=1e-5), "nothing is lost of rows within"
    for blank in (torch.zeros(3, 16), torch.zeros(0, 16)):
        vectors, energy = principal_directions(blank, 2)
        assert vectors.shape == (2, 16) and not bool(vectors.any()) and not bool(energy.any())


def test_directions_of_rows_nearly_alike_stand_at_right_angles():
    rows = torch.ones(12, 256, dtype=torch.float64) + 1e-4 * drawn(12, 256, seed=6)
    vectors, _ = principal_directions(rows.to(DEVICE), 12)
    vectors = vectors.cpu().double()
    assert (vectors @ vectors.T - torch.eye(12)).abs().max() < 1e-6


def test_features_are_all_of_it():
    rank, hidden = bases_of(LAYOUT)
    rows = drawn(20, LAYOUT.size, seed=8).float()
    moved = rows.to(DEVICE)
    plain = torch.stack([turned_plainly(LAYOUT, rank, hidden, row) for row in rows])
    moments = plain.square().mean(0).float()
    bases = Eigenbases(LAYOUT, rank, hidden, moments, 0.01)
    floors = torch.cat(
        [each.double().mean().expand(len(each)) for each in moments.split([r * h for r, h in LAYOUT.shapes])]
    )
    divided = plain / (moments.double() + 0.01 * floors).sqrt()
    sketches = torch.stack([sketched_plainly(77, 32, row) for row in divided])
    open_only = Features(bases, 77, 32, None, DEVICE)
    assert apart(open_only.sketched(moved), sketches) < 1e-5 and open_only.k == 0
    vectors, _ = principal_directions(open_only.sketched(moved), 6)
    features = Features(bases, 77, 32, vectors, DEVICE)
    reduced = features.reduced(moved)
    assert features.k == 6 and features.nbytes > 0
    assert apart(reduced[:, :6], sketches @ vectors.cpu().double().T) < 1e-5
    assert apart(reduced[:, 6], sketches.square().sum(1)) < 1e-5
    with pytest.raises(EngineFault, match="projection"):
        Features(bases, 77, 64, vectors, DEVICE)
