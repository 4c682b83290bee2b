"""The Triton kernel, on a GPU or in Triton's interpreter where there is one; and the plan that uses it, with plain products for the kernel."""

import importlib.util
import os
import subprocess
import sys

import torch
from conftest import DEVICE, some_adapter

from openledger_torch import plans
from openledger_torch.adapters import Lora
from openledger_torch.base import TARGETS
from openledger_torch.kernels import gather_kernel

CHECK = """
import sys
import torch
from openledger_torch.kernels import GatherKernel
for rank in (1, 5, 16):
    for width, outputs in ((300, 200), (64, 512), (1000, 7)):
        generator = torch.Generator().manual_seed(rank)
        draw = lambda *shape: torch.randn(*shape, generator=generator).to(sys.argv[1])
        pool = draw(4, 7 + rank * (width + outputs))
        x, y, slots = draw(3, width), draw(3, outputs), torch.tensor([3, 0, 2], device=sys.argv[1])
        a = pool[slots, 7 : 7 + rank * width].view(3, rank, width)
        b = pool[slots, 7 + rank * width :].view(3, rank, outputs)
        plain = torch.baddbmm(y[:, None], torch.bmm(x[:, None], a.transpose(1, 2)), b)[:, 0]
        got = GatherKernel().add(x, y, pool, slots, 7, 7 + rank * width, rank)
        assert torch.allclose(got, plain, rtol=1e-4, atol=1e-3), (rank, width, outputs)
"""


def test_the_kernel_is_a_gathered_product():
    if importlib.util.find_spec("triton") is None:
        assert gather_kernel(torch.device("cpu")) is None, "without Triton the plain way is taken"
        return
    interpreted = {} if DEVICE.type == "cuda" else {"TRITON_INTERPRET": "1"}
    environment = {**os.environ, **interpreted, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", CHECK, str(DEVICE)], env=environment, check=True, timeout=300)


class PlainKernel:
    calls = 0

    def add(self, x, y, pool, slots, a, b, rank):
        self.calls += 1
        width, outputs = x.shape[1], y.shape[1]
        left = pool[slots, a : a + rank * width].view(-1, rank, width)
        right = pool[slots, b : b + rank * outputs].view(-1, rank, outputs)
        return torch.baddbmm(y[:, None], torch.bmm(x[:, None], left.transpose(1, 2)), right)[:, 0]


def test_the_plan_hands_it_the_right_places(serving, monkeypatch):
    run = serving(batch=4)
    entries = []
    for at, lora in enumerate((Lora(4, 8.0, TARGETS), Lora(2, 2.0, ("q_proj", "v_proj")))):
        config, weights, _ = some_adapter(run.base, lora, seed=at, size=0.2)
        entries.append(run.tiers.register(at + 1, config, weights))
    asked = [entries[0], None, entries[1], entries[0], entries[1]]
    expected = [run.add(entry, prompt=[9, 8, at + 3])[0] for at, entry in enumerate(asked)]
    run.run()
    kernel = PlainKernel()
    monkeypatch.setattr(plans, "gather_bytes", lambda _device: 0)
    monkeypatch.setattr(run.server._plans, "_kernel", kernel)
    again = [run.add(entry, prompt=[9, 8, at + 3])[0] for at, entry in enumerate(asked)]
    run.run()
    assert [outcome.tokens for outcome in again] == [outcome.tokens for outcome in expected]
    assert kernel.calls > 0
