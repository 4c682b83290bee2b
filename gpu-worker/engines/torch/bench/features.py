"""
What the way from a gradient to its feature takes on a device, for adapters of models of several sizes on all seven targets, and what bases
are made with. No model is loaded: gradients and bases are random, which does not change the work.

    python bench/features.py [--size 3m,75m,8b] [--device auto] [--rank 8] [--k 256] [--sketch-width 65536] [--rows 1024]
"""

from __future__ import annotations

import argparse
import platform
import time
from typing import Callable

import torch
from common import percentile, report
from torch import Tensor

from openledger_torch.base import choose_device
from openledger_torch.eigenbases import Layout, eigenbases_of
from openledger_torch.features import Eigenbases, Features, along
from openledger_torch.sketches import principal_directions

#: Layers, width, keys' and values' width, the feed-forward block's.
SIZES = {"3m": (6, 192, 64, 512), "75m": (12, 768, 256, 2048), "8b": (32, 4096, 1024, 14336)}


def layout_of(size: str, rank: int) -> Layout:
    """In the order of names: down, gate and up; k, o, q and v; of each `lora_A` and `lora_B`."""
    layers, width, keys, inner = SIZES[size]
    sides = [(inner, width), (width, inner), (width, inner), (width, keys), (width, width), (width, width), (width, keys)]
    return Layout(tuple((rank, hidden) for _ in range(layers) for pair in sides for hidden in pair), 32)


def covariances_of(layout: Layout, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Random ones. What is read of them is symmetric."""
    draw = torch.Generator(device).manual_seed(1)

    def side(count: int) -> Tensor:
        return torch.randn(count, generator=draw, device=device, dtype=torch.float64)

    return [(side(layout.rank_entries(m)), side(layout.hidden_entries(m))) for m in range(len(layout.shapes))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="3m,75m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of the CPU's matrix products")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--k", type=int, default=256)
    parser.add_argument("--sketch-width", type=int, default=65_536)
    parser.add_argument("--rows", type=int, default=1024, help="sketches that directions are made of")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    cuda = device.type == "cuda"

    def timed(body: Callable[[], object]) -> float:
        """ms; on the CPU those that the process had of it."""
        if cuda:
            torch.cuda.synchronize(device)
        clock = time.perf_counter if cuda else time.process_time
        began = clock()
        body()
        if cuda:
            torch.cuda.synchronize(device)
        return (clock() - began) * 1000

    def median(body: Callable[[], object], times: int = 9) -> float:
        body()
        return percentile([timed(body) for _ in range(times)], 50)

    rows: list[dict[str, object]] = []
    for size in options.size.split(","):
        layout = layout_of(size, options.rank)
        covariances = covariances_of(layout, device)
        made: list[tuple[list[Tensor], list[Tensor]]] = []
        decomposed = timed(lambda: made.append(eigenbases_of(layout, covariances)))
        del covariances
        draw = torch.Generator(device).manual_seed(2)
        bases = Eigenbases(layout, *made[0], torch.rand(layout.size, generator=draw, device=device), 0.01)
        vectors = torch.randn(options.k, options.sketch_width, generator=draw, device=device)
        features: list[Features] = []
        opened = timed(lambda: features.append(Features(bases, 5, options.sketch_width, vectors, device)))
        own = features[0]
        gradient = torch.randn(1, layout.size, generator=draw, device=device)
        sketch = own.sketched(gradient)
        many = torch.randn(max(1, min(8, (1 << 30) // (4 * layout.size))), layout.size, generator=draw, device=device)
        rows.append(
            {
                "model": size,
                "parameters": layout.size,
                "a gradient, MB": round(4 * layout.size / 1e6, 1),
                "feature, ms": round(median(lambda: own.reduced(gradient)), 2),
                "of which along V_k": round(median(lambda: along(sketch, vectors)), 2),
                f"in passes of {len(many)}": round(median(lambda: own.reduced(many)) / len(many), 2),
                "opening, ms": round(opened),
                "bases, MiB": own.nbytes >> 20,
                "eigenbases, ms": round(decomposed),
            }
        )
    sketches = torch.randn(options.rows, options.sketch_width, device=device)
    about = {
        "device": f"{device} ({torch.cuda.get_device_name(device) if cuda else platform.machine()})",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rank": options.rank,
        "k": options.k,
        "width": options.sketch_width,
        f"directions of {options.rows} sketches, ms": round(timed(lambda: principal_directions(sketches, options.k))),
    }
    report("torch-features", about, rows)


if __name__ == "__main__":
    main()
