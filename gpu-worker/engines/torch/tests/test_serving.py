"""Serving: tiers, fairness, cancellation, faults, limits."""

import pytest
import torch
from conftest import some_adapter

from openledger_torch.adapters import Lora, factors_of
from openledger_torch.base import TARGETS
from openledger_torch.errors import EngineFault
from openledger_torch.sampler import sample


def register(run, count, lora=Lora(2, 2.0, ("q_proj", "v_proj")), size=0.3):
    entries = []
    for at in range(count):
        config, weights, _ = some_adapter(run.base, lora, seed=at, size=size)
        entries.append(run.tiers.register(at + 1, config, weights))
    return entries


def alone(run, entry, **request):
    outcome, _ = run.add(entry, **request)
    run.run()
    return outcome.tokens


def test_more_adapters_than_slots_and_host_memory(serving):
    run = serving(batch=3, slots=3, host_bytes=4 * 4 * 3 * 2 * (32 + 32 + 32 + 16))
    entries = register(run, 12)
    assert run.tiers.tiers() == {"device": 0, "host": 4, "disk": 12}
    expected = [alone(run, entry) for entry in entries]
    assert len({tuple(tokens) for tokens in expected}) > 6, "they are different adapters"
    outcomes = [run.add(entries[i % 12], prompt=[5, 6, 7])[0] for i in range(40)]
    run.run()
    for i, outcome in enumerate(outcomes):
        assert outcome.tokens == expected[i % 12]
    tiers = run.tiers.tiers()
    assert tiers["device"] == 3 and tiers["host"] <= 4 and tiers["disk"] == 12
    rows = {row[0]: row for row in run.tiers.report()}
    assert sum(row[2] for row in rows.values()) == 52
    assert all(row[5] + row[6] + row[7] == row[2] for row in rows.values())
    assert sum(row[7] for row in rows.values()) > 10, "some came from disk"


def test_slots_grow_with_rank_and_targets(serving):
    run = serving(batch=4)
    small = register(run, 2)
    before = alone(run, small[0])
    config, weights, _ = some_adapter(run.base, Lora(7, 3.0, TARGETS), seed=9, size=0.3)
    wide = run.tiers.register(50, config, weights)
    own = alone(run, wide)
    outcomes = [run.add(e)[0] for e in (small[0], wide, None, small[1], wide, small[0])]
    run.run()
    assert outcomes[0].tokens == outcomes[5].tokens == before
    assert outcomes[1].tokens == outcomes[4].tokens == own


def test_slots_are_as_many_as_memory_holds(serving, monkeypatch):
    plenty, wide_lora = serving(batch=4), Lora(16, 3.0, TARGETS)
    small = register(plenty, 6)
    config, weights, _ = some_adapter(plenty.base, wide_lora, seed=9, size=0.3)
    wide = plenty.tiers.register(50, config, weights)
    expected = [alone(plenty, entry) for entry in (*small, wide)]

    wide_slot = factors_of(plenty.base, wide_lora).size * 4
    run = serving(batch=4, slot_bytes=2 * wide_slot + 1)
    small = register(run, 6)
    # Small ones have more room than there are slots; of the wide ones two would fit, and three are in use when the first comes.
    first = [run.add(entry, maxTokens=20)[0] for entry in small[:3]]
    run.server.step()
    assert run.tiers.pool.shape[0] == 9
    wide = run.tiers.register(50, config, weights)
    assert alone(run, wide) == expected[6]
    assert run.tiers.pool.shape[0] == 4
    assert [outcome.tokens[:8] for outcome in first] == expected[:3]
    outcomes = [run.add(entry)[0] for entry in (*small, wide)]
    run.run()
    assert [outcome.tokens for outcome in outcomes] == expected
    assert run.tiers.tiers()["device"] <= 3

    # Memory that runs out where slots are made costs those who asked, and nothing of what there was.
    other = serving(batch=4)
    register(other, 2)
    assert alone(other, other.tiers.entry(1)) == expected[0]
    made = torch.zeros

    def scarce(*shape, **options):
        if shape[0] == 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made(*shape, **options)

    late = other.tiers.register(50, config, weights)
    monkeypatch.setattr(torch, "zeros", scarce)
    outcome, _ = other.add(late)
    other.run()
    assert outcome.how.code == "OUT_OF_MEMORY"
    assert alone(other, other.tiers.entry(2)) == expected[1]
    monkeypatch.undo()
    assert alone(other, late) == expected[6]


def test_a_flood_does_not_keep_others_out(serving):
    run = serving(batch=4, queue=100)
    flooding, other = register(run, 2)
    flood = [run.add(flooding, maxTokens=20)[0] for _ in range(60)]
    for _ in range(5):
        run.server.step()
    late, sequence = run.add(other, maxTokens=20)
    steps = 0
    while late.how is None:
        run.server.step()
        steps += 1
        assert steps < 60, "it joins at the next free place"
    assert sum(outcome.how is not None for outcome in flood) < 12
    run.run()
    assert all(outcome.how == "length" for outcome in flood)


def test_a_full_queue_refuses_and_one_adapter_cannot_fill_it(serving):
    run = serving(batch=2, queue=20)
    first, second = register(run, 2)
    run.add(second)
    for _ in range(2 + 15):
        run.add(first)
    with pytest.raises(EngineFault, match="this adapter") as fault:
        run.add(first)
    assert fault.value.code == "OVERLOADED"
    for _ in range(4):
        run.add(second)
    with pytest.raises(EngineFault) as fault:
        run.add(second)
    assert fault.value.code == "OVERLOADED"
    run.run()


def test_cancelling_and_closing_leave_the_rest_alone(serving):
    run = serving(batch=3)
    entries = register(run, 3)
    expected = [alone(run, entry, maxTokens=30) for entry in entries]
    rows = [run.add(entry, maxTokens=30) for entry in entries for _ in range(2)]
    for step in range(200):
        if step == 7:
            run.server.abort(rows[0][1])
            run.server.abort(rows[5][1])
            run.tiers.close(entries[1].id)
        run.server.step()
    assert [outcome.how for outcome, _ in rows] == ["aborted", "length", "length", "length", "length", "aborted"]
    for at in (1, 2, 3, 4):
        assert rows[at][0].tokens == expected[at // 2]
    assert rows[0][0].tokens == expected[0][: len(rows[0][0].tokens)]
    assert run.tiers.open == 2
    with pytest.raises(EngineFault, match="closed"):
        run.add(entries[1])


def test_an_adapter_that_diverges_harms_nobody_else(serving):
    run = serving(batch=3)
    (good,) = register(run, 1)
    expected = alone(run, good, maxTokens=30)
    config, weights, _ = some_adapter(run.base, Lora(2, 2.0, TARGETS), seed=5, size=1e30)
    bad = run.tiers.register(9, config, weights)
    outcomes = [run.add(entry, maxTokens=30)[0] for entry in (good, bad, good, bad, good, bad)]
    run.run()
    assert [getattr(o.how, "code", o.how) for o in outcomes] == ["length", "DIVERGED"] * 3
    assert all(outcome.tokens == expected for outcome in outcomes[::2])


def test_going_on_behind_given_tokens_gives_the_same(serving):
    run = serving()
    (entry,) = register(run, 1)
    request = dict(prompt=[9, 8, 7, 6], maxTokens=20, temperature=0.9, topP=0.8, seed="77")
    whole = alone(run, entry, **request)
    for cut in (1, 7, 19):
        outcome, _ = run.add(entry, **request, given=whole[:cut])
        run.run()
        assert outcome.tokens == whole


def test_end_tokens_and_positions_end(serving):
    run = serving()
    free = alone(run, None, maxTokens=20)
    outcome, _ = run.add(None, eos=frozenset([free[4]]), maxTokens=20)
    run.run()
    assert outcome.how == "stop" and outcome.tokens == free[: free.index(free[4]) + 1]
    outcome, _ = run.add(None, prompt=[3] * 120, maxTokens=50)
    run.run()
    assert outcome.how == "length" and len(outcome.tokens) == 8


@pytest.mark.parametrize(
    "change, code",
    [
        (dict(prompt=[]), "BAD_REQUEST"),
        (dict(prompt=[97]), "BAD_REQUEST"),
        (dict(prompt=[1.5]), "BAD_REQUEST"),
        (dict(prompt=[5] * 128), "PROMPT_TOO_LONG"),
        (dict(maxTokens=0), "BAD_REQUEST"),
        (dict(temperature=None), "BAD_REQUEST"),
        (dict(temperature=-1), "BAD_REQUEST"),
        (dict(topP=0), "BAD_REQUEST"),
        (dict(seed="-1"), "BAD_REQUEST"),
        (dict(seed=str(2**64)), "BAD_REQUEST"),
        (dict(given=[1] * 8), "BAD_REQUEST"),
    ],
)
def test_bad_requests_are_refused(serving, change, code):
    with pytest.raises(EngineFault) as fault:
        serving().add(None, **change)
    assert fault.value.code == code


def test_sampling_follows_the_distribution():
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0]])
    assert sample(logits, [0.0], [1.0], [0.9]) == [1], "of equal logits the lowest id"
    weights = torch.softmax(logits[0].double() / 0.7, 0)
    many = 4000
    ids = sample(logits.expand(many, -1), [0.7] * many, [1.0] * many, [i / many for i in range(many)])
    counts = torch.bincount(torch.tensor(ids), minlength=4) / many
    assert (counts - weights).abs().max() < 2e-3
    ids = sample(logits.expand(many, -1), [0.7] * many, [0.75] * many, [i / many for i in range(many)])
    assert set(ids) == {1, 3}, "the fewest that make three quarters"
    faults = sample(torch.tensor([[float("nan"), 1.0], [1.0, 2.0]]), [0.0, 0.0], [1.0, 1.0], [0.0, 0.0])
    assert isinstance(faults[0], EngineFault) and faults[1] == 1


def beyond_the_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory")


def beyond_the_host():
    # The allocator's own refusal, which PyTorch has no class for on the CPU.
    torch.empty(1 << 56)


@pytest.mark.parametrize("run_out", [beyond_the_gpu, beyond_the_host])
def test_memory_that_runs_out_costs_the_youngest_half(serving, monkeypatch, run_out):
    run = serving(batch=4)
    entries = register(run, 4)
    expected = [alone(run, entry, maxTokens=20) for entry in entries]
    outcomes = [run.add(entry, maxTokens=20)[0] for entry in entries]
    for _ in range(5):
        run.server.step()
    forward = run.server._forward
    failed = []

    def once(*arguments):
        if not failed:
            failed.append(True)
            run_out()
        return forward(*arguments)

    monkeypatch.setattr(run.server, "_forward", once)
    run.run()
    assert [getattr(o.how, "code", o.how) for o in outcomes] == ["length", "length", "OUT_OF_MEMORY", "OUT_OF_MEMORY"]
    assert [outcome.tokens for outcome in outcomes[:2]] == expected[:2]
    assert alone(run, entries[3], maxTokens=20) == expected[3], "and it goes on"


def test_keys_and_values_stay_within_their_bytes(serving):
    run = serving(batch=4)
    # The first pass shows what a position costs; then there is room for 64 of them a row, and no more.
    alone(run, None, maxTokens=4)
    bytes_a_grain = run.server.cache_bytes
    bound = serving(batch=4, cache_bytes=bytes_a_grain)
    alone(bound, None, maxTokens=4)
    short = [bound.add(maxTokens=20)[0] for _ in range(6)]
    long = bound.add(maxTokens=100)[0]
    most = 0
    beside = 0
    while bound.server.active + bound.server.waiting > 0:
        bound.server.step()
        most = max(most, bound.server.cache_bytes)
        beside = max(beside, bound.server.active if long.tokens and long.how is None else 0)
        if long.how is None and not long.tokens:
            assert bound.server.cache_bytes <= bytes_a_grain
    assert [outcome.how for outcome in (*short, long)] == ["length"] * 7, "what alone is too large still runs, alone"
    assert beside == 1
    assert most == 2 * bytes_a_grain
