"""What the benches share: a base model, adapters with random factors, prompts, tables, results as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
REPOSITORY = os.path.abspath(os.path.join(HERE, "..", "..", "..", ".."))

from openledger_torch.adapters import Lora, factors_of, write_config, write_weights  # noqa: E402
from openledger_torch.base import BaseModel, choose_device, choose_dtype  # noqa: E402
from openledger_torch.loading import load_base  # noqa: E402

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default=os.path.join(REPOSITORY, "gpu-worker", "models", "glossa-3m"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--threads", type=int, help="of the CPU's matrix products")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", default="q_proj,v_proj")
    parser.add_argument("--wait-for", metavar="FILE", help="measure when FILE is there: benches can be prepared side by side")
    return parser


def ready(options: argparse.Namespace) -> None:
    while options.wait_for is not None and not os.path.exists(options.wait_for):
        time.sleep(0.2)


def load(options: argparse.Namespace) -> tuple[BaseModel, Lora]:
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    base = load_base(options.model, device, choose_dtype(options.dtype, device, options.model))
    targets = ALL if options.targets == "all" else tuple(options.targets.split(","))
    return base, Lora(options.rank, float(2 * options.rank), targets)


def adapter(base: BaseModel, lora: Lora, seed: int, size: float = 0.05) -> tuple[bytes, bytes]:
    factors = factors_of(base, lora)
    flat = torch.randn(factors.size, generator=torch.Generator().manual_seed(seed)) * size
    return write_config(lora, "bench"), write_weights(factors, flat)


def where(base: BaseModel) -> dict[str, object]:
    device = base.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device} ({name})",
        "dtype": str(base.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": base.info["name"],
        "parameters": base.info["parameters"],
    }


def synchronise(base: BaseModel) -> None:
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)


def zipf(count: int, draws: int, exponent: float, seed: int) -> np.ndarray:
    """Adapter numbers, the first the most wanted."""
    weights = 1 / np.arange(1, count + 1) ** exponent
    return np.random.default_rng(seed).choice(count, size=draws, p=weights / weights.sum())


def report(name: str, about: dict[str, object], rows: list[dict[str, object]], shown: bool = True) -> None:
    """Prints it if it is to be `shown`, and writes it to bench-results/."""
    if shown:
        _print(name, about, rows)
    directory = os.path.join(REPOSITORY, "bench-results")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, f"{name}.json"), "w", encoding="utf-8") as file:
        json.dump({"about": about, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "rows": rows}, file, indent=1)


def _print(name: str, about: dict[str, object], rows: list[dict[str, object]]) -> None:
    print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[str(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells)]
    for line in (columns, ["-" * width for width in widths], *cells):
        print(" | ".join(text.ljust(width) for text, width in zip(line, widths)))


def median(values: list[float]) -> float:
    """Of an even number the greater of both in the middle."""
    return sorted(values)[len(values) // 2]


def percentile(values: list[float], part: float) -> float:
    return float(np.percentile(np.array(values), part)) if values else float("nan")
