"""What CUDA graphs are recorded of, run without them where there are none: the same results as the plain way gives."""

import numpy as np
import pytest
import torch
from conftest import DEVICE, some_adapter, some_examples

from openledger_torch import graphs, plans, serving_graphs
from openledger_torch.adapters import Lora
from openledger_torch.attribution import Scope, gradient_rows
from openledger_torch.base import TARGETS
from openledger_torch.kernels import gather_kernel
from openledger_torch.pass_graphs import GradientGraphs
from openledger_torch.training import StepResult, Trainer, read_settings

REHEARSE = DEVICE.type != "cuda"
LORAS = (Lora(4, 8.0, TARGETS), Lora(4, 6.0, TARGETS), Lora(2, 2.0, ("q_proj", "v_proj")))


def served(run, loras=LORAS):
    """Tokens of requests of several lengths, by several adapters and none, that join and leave one another."""
    entries = []
    for at, lora in enumerate(loras):
        config, weights, _ = some_adapter(run.base, lora, seed=at, size=0.2)
        entries.append(run.tiers.register(at + 1, config, weights))
    draw = np.random.default_rng(4)
    outcomes = []
    for at in range(14):
        entry = (None, *entries)[int(draw.integers(len(loras) + 1))]
        prompt = draw.integers(2, 97, draw.integers(1, 60)).tolist()
        outcomes.append(run.add(entry, prompt=prompt, maxTokens=int(draw.integers(1, 60)))[0])
        run.server.step()
    run.run()
    assert all(outcome.how == "length" for outcome in outcomes)
    return [outcome.tokens for outcome in outcomes]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_serving_gives_the_same_tokens(family, serving, monkeypatch):
    want = serving(family, batch=5)
    want.server._graphs = None
    expected = served(want)
    run = serving(family, batch=5, rehearse=REHEARSE)
    recorded = run.server._graphs._graphs
    assert served(run) == expected
    assert recorded.on and len(recorded) > 5
    # Without gathering: adapters are read where they lie.
    if gather_kernel(DEVICE) is not None:
        monkeypatch.setattr(plans, "gather_bytes", lambda _device: 0)
        assert served(serving(family, batch=5, rehearse=REHEARSE)) == expected
    # Few of them kept.
    monkeypatch.setattr(serving_graphs, "MOST", 2)
    run = serving(family, batch=5, rehearse=REHEARSE)
    assert served(run) == expected
    assert len(run.server._graphs._graphs) == 2


def test_memory_that_is_too_short_for_recording_is_done_without(serving, monkeypatch):
    expected = served(serving("llama", batch=5))

    def short(*_given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(graphs._Graph, "record", short)
    run = serving("llama", batch=5, rehearse=REHEARSE)
    # As if there were a place to record to.
    monkeypatch.setattr(graphs._Graph, "plain", lambda self, _aside: self._body())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    run.server._graphs._graphs._rehearse = False
    run.server._graphs._graphs.clear()
    assert served(run) == expected
    assert not run.server._graphs._graphs.on
    run.server._graphs._graphs._rehearse = True


@pytest.mark.parametrize("scope", [Scope(), Scope(from_layer=2, stride=3)])
@pytest.mark.parametrize("family", ["llama", "qwen3", "llama in bf16"])
def test_gradients_are_those_of_plain_passes(family, scope, base):
    own = base(family, torch.bfloat16) if "bf16" in family else base(family)
    recorded = GradientGraphs(own, rehearse=REHEARSE)
    adapters = [(lora, some_adapter(own, lora, seed=at)[2]) for at, lora in enumerate(LORAS)]
    examples = some_examples(8)
    for turn in range(3):
        for example in examples:
            for adapter in adapters:
                rows, losses = recorded.rows([example], [adapter], scope)
                want, loss = gradient_rows(own, [example], [adapter], scope)
                assert (rows - want).norm() <= 1e-4 * want.norm()
                assert abs(losses.item() - loss.item()) <= 1e-4 * loss.item()
    assert recorded._graphs is not None and recorded._graphs.on
    assert 1 < len(recorded._graphs) < len(examples) * len(adapters)
    many, _ = recorded.rows(examples[:2], [adapters[0]] * 2, scope)
    assert many.shape[0] == 2


def test_training_is_that_of_plain_passes(base):
    own = base("llama")
    settings = read_settings(
        dict(lora=dict(rank=4, alpha=8, targets=list(TARGETS)), learningRate=0.01, epochs=4, batch=3, sequenceLength=32,
             warmup=0.25, seed="11", clip=0.5)
    )
    weights = [1.0, 0.5, 0.25, 1.0, 0.0, 1.0, 0.75, 1.0]
    # Micro-batches of one and two.
    ways = [Trainer(own, settings, some_examples(8), weights, None, 60, rehearse=each) for each in (False, REHEARSE)]
    ways[0]._passes._graphs = None
    counts = []
    losses = []
    for run in ways:
        losses.append([])
        for told in run.run("x"):
            if isinstance(told, StepResult):
                losses[-1].append(told.loss)
                counts.append(len(run._passes._graphs or ()))
    assert np.allclose(*losses, rtol=1e-5)
    plain, recorded = (run.flat.detach() for run in ways)
    assert (recorded - plain).norm() <= 1e-3 * plain.norm()
    graphs_of = ways[1]._passes._graphs
    assert graphs_of is not None and graphs_of.on and max(counts) > 1
    assert len(graphs_of) == 0, "memory is given back at the end"
