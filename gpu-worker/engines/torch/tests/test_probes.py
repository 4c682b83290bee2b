"""Gradients of several calls in one pass: the same as each by itself, and nobody waits for long."""

import pytest
import torch
from conftest import some_adapter, some_examples

from openledger_torch import attribution, pass_graphs, probes
from openledger_torch.adapters import Lora
from openledger_torch.attribution import Scope
from openledger_torch.errors import EngineFault
from openledger_torch.probes import Probes

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def alone(base, examples, lora, flat, scope):
    return torch.cat([rows for rows, _ in attribution.gradients(base, examples, lora, flat, scope, 10_000)]).cpu()


@pytest.mark.parametrize("scope", [Scope(), Scope(1, 3)])
def test_one_pass_for_different_adapters(base, scope):
    own = base("qwen3")
    examples = some_examples(7)
    # Two of one shape with other scales; one of another shape, which needs a pass of its own.
    loras = [Lora(4, 8.0, SEVEN), Lora(4, 2.0, SEVEN[::-1]), Lora(2, 4.0, ("q_proj", "v_proj"))]
    flats = [some_adapter(own, lora, seed=at)[2] for at, lora in enumerate(loras)]
    calls = [(0, examples[:2]), (1, examples[2:4]), (2, examples[4:5]), (0, examples[5:])]
    all_probes = Probes(own, 10_000)
    waiting = [all_probes.add(some, loras[which], flats[which], scope) for which, some in calls]
    all_probes.step(waiting[0])
    assert [probe.done for probe in waiting] == [True, True, False, True]
    all_probes.step(waiting[2])
    assert waiting[2].done and all_probes.passes == 2
    for probe, (which, some) in zip(waiting, calls):
        want = alone(own, some, loras[which], flats[which], scope)
        got = torch.cat(probe.results)
        assert len(probe.losses) == len(some)
        assert (got - want).norm() <= 1e-5 * want.norm()


def test_a_pass_is_no_larger_than_others_are(base):
    own = base("llama")
    lora = Lora(4, 8.0, SEVEN)
    flat = some_adapter(own, lora, seed=1)[2]
    examples = some_examples(9)
    all_probes = Probes(own, 60)
    probe = all_probes.add(examples, lora, flat, Scope())
    other = all_probes.add(examples[:1], lora, flat, Scope())
    while not probe.done:
        all_probes.step(probe)
    assert all_probes.passes > 2
    while not other.done:
        all_probes.step(other)
    want = alone(own, examples, lora, flat, Scope())
    assert (torch.cat(probe.results) - want).norm() <= 1e-5 * want.norm()


def test_waiting_for_others_ends(base, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(probes, "now_ms", lambda: now[0])
    own = base("llama")
    lora = Lora(4, 8.0, SEVEN)
    flat = some_adapter(own, lora, seed=1)[2]
    all_probes = Probes(own, 10_000)
    first = all_probes.add(some_examples(1), lora, flat, Scope())
    assert all_probes.ripe(4), "no pass so far says how long one takes"
    monkeypatch.setattr(pass_graphs, "gradient_rows", lambda *given: (now.__setitem__(0, 30.0), attribution.gradient_rows(*given))[1])
    all_probes.step(first)
    second = all_probes.add(some_examples(1), lora, flat, Scope())
    assert not all_probes.ripe(4), "two passes of 30 ms"
    now[0] = 91.0
    assert all_probes.ripe(4)
    all_probes.add(some_examples(3), lora, flat, Scope())
    now[0] = 31.0
    assert all_probes.ripe(4), "enough are there"
    all_probes.leave(second)
    assert not all_probes.ripe(4)


def test_memory_that_runs_out_in_company_does_not_cost_the_call(base, monkeypatch):
    own = base("llama")
    lora = Lora(4, 8.0, SEVEN)
    flat = some_adapter(own, lora, seed=1)[2]
    tried = []

    def scarce(base, batch, adapters, scope):
        tried.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return attribution.gradient_rows(base, batch, adapters, scope)

    monkeypatch.setattr(pass_graphs, "gradient_rows", scarce)
    all_probes = Probes(own, 10_000)
    probe = all_probes.add(some_examples(2), lora, flat, Scope())
    while not probe.done:
        all_probes.step(probe)
    assert tried == [2, 1, 1]
    with pytest.raises(EngineFault):
        all_probes.add(some_examples(1), lora, flat, Scope(stride=0))
