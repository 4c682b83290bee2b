"""
Throughput with many adapters against one, and against peft's mixed batches; time to first token under load.

    python bench/serving.py [--adapters 1000] [--requests 256] [--batch 16] [--device cuda] …
"""

from __future__ import annotations

import os
import tempfile
import time

import numpy as np
import torch
from common import adapter, arguments, load, median, percentile, report, synchronise, where, zipf

from openledger_torch.serving import Limits, Sequence, Server, read_request
from openledger_torch.tiers import AdapterTiers, now_ms


class Run:
    def __init__(self, base, tiers, batch: int, queue: int) -> None:
        self.base = base
        self.tiers = tiers
        self.server = Server(base, tiers, Limits(batch, queue, 1024, 16 << 30))
        self.first: list[float] = []
        self.left = 0

    def add(self, entry, prompt: list[int], tokens: int, at: float | None = None) -> None:
        request, limit = read_request(
            self.base, dict(prompt=prompt, maxTokens=tokens, temperature=0, topP=1, seed="0"), frozenset()
        )
        self.left += 1

        def done(_how) -> None:
            self.left -= 1
            self.first.append(sequence.first_ms - sequence.started)

        sequence = Sequence(request, entry, lambda _id: None, done, limit, now_ms() if at is None else at)
        self.server.add(sequence)

    def finish(self) -> None:
        while self.left > 0:
            if not self.server.step():
                time.sleep(0.0002)


def clock(base) -> float:
    """Seconds; on the CPU those that this process had of it, so that what else runs on the machine does not count."""
    synchronise(base)
    return time.perf_counter() if base.device.type == "cuda" else time.process_time()


def saturated(run: Run, entries, chosen, prompts, lengths) -> float:
    """Tokens a second when all requests are there from the start."""
    for which, prompt, length in zip(chosen, prompts, lengths):
        run.add(entries[which], prompt, int(length))
    began = clock(run.base)
    run.finish()
    return int(sum(lengths)) / (clock(run.base) - began)


def under_load(run: Run, entries, chosen, prompts, lengths, rate: float) -> list[float]:
    """First-token times (ms) of requests that come as a Poisson process of `rate` requests a second."""
    run.first.clear()
    gaps = np.random.default_rng(9).exponential(1 / rate, len(prompts))
    due = now_ms() + np.cumsum(gaps) * 1000
    at = 0
    while at < len(prompts) or run.left > 0:
        while at < len(prompts) and due[at] <= now_ms():
            run.add(entries[chosen[at]], prompts[at], int(lengths[at]), due[at])
            at += 1
        if not run.server.step():
            time.sleep(0.0005)
    return run.first


def pefts(base, options, lora, chosen, prompts, lengths) -> float:
    """
    peft's own mixed batches: `generate(adapter_names=…)`, batch by batch in the order of arrival, prompts padded left, until
    the longest answer of the batch is made. Only tokens that were asked for count.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=base.dtype).to(base.device)
    wanted = sorted(set(chosen))
    with tempfile.TemporaryDirectory() as directory:
        peft_model = None
        for which in wanted:
            path = os.path.join(directory, str(which))
            os.makedirs(path)
            for name, data in zip(("adapter_config.json", "adapter_model.safetensors"), adapter(base, lora, which)):
                with open(os.path.join(path, name), "wb") as file:
                    file.write(data)
            if peft_model is None:
                peft_model = PeftModel.from_pretrained(model, path, adapter_name=f"a{which}")
            else:
                peft_model.load_adapter(path, adapter_name=f"a{which}")
        peft_model.eval()
        made = 0
        began = clock(base)
        for at in range(0, len(prompts), options.batch):
            some = prompts[at : at + options.batch]
            width = max(map(len, some))
            ids = torch.tensor([[0] * (width - len(p)) + p for p in some], device=base.device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in some], device=base.device)
            longest = int(max(lengths[at : at + options.batch]))
            names = [f"a{which}" for which in chosen[at : at + options.batch]]
            with torch.inference_mode():
                peft_model.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=longest, min_new_tokens=longest, do_sample=False,
                    adapter_names=names, pad_token_id=0,
                )
            made += int(sum(lengths[at : at + options.batch]))
        return made / (clock(base) - began)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer on average: lengths are exponential")
    parser.add_argument("--exponent", type=float, default=1.0)
    parser.add_argument("--peft-requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    base, lora = load(options)
    draw = np.random.default_rng(1)
    prompts = [draw.integers(3, base.vocabulary, draw.integers(8, 48)).tolist() for _ in range(options.requests)]
    lengths = np.clip(draw.exponential(options.tokens, options.requests), 4, 6 * options.tokens).astype(int)
    lengths = np.minimum(lengths, base.positions - 64)
    spread = zipf(options.adapters, options.requests, options.exponent, 2)
    with tempfile.TemporaryDirectory() as directory:
        # A quarter fits into host memory: the rest comes from disk.
        size = len(adapter(base, lora, 0)[1])
        tiers = AdapterTiers(base, directory, options.slots, size * options.adapters // 4)
        began = time.perf_counter()
        entries = [tiers.register(i + 1, *adapter(base, lora, i)) for i in range(options.adapters)]
        registered = time.perf_counter() - began
        rows = []
        measured: dict[str, list[float]] = {"none": [], "one": [], "zipf": []}
        # One server for all, as a worker has it; the first round makes its cache as large as it becomes.
        run = Run(base, tiers, options.batch, options.requests)
        saturated(run, entries, spread, prompts, lengths)
        for _ in range(options.rounds):
            for name, chosen, table in (
                ("none", spread * 0, [None]),
                ("one", spread * 0, entries),
                ("zipf", spread, entries),
            ):
                measured[name].append(saturated(run, table, chosen, prompts, lengths))
        speed = {name: median(values) for name, values in measured.items()}
        began = time.perf_counter()
        saturated(run, entries, spread, prompts, lengths)
        # By the wall's clock, since requests come by it.
        rates = 0.6 * len(prompts) / (time.perf_counter() - began)
        first = under_load(run, entries, spread, prompts, lengths, rates)
        hits = np.array([row[5:8] for row in tiers.report()]).sum(axis=0)
        tiers.shut()
    count = min(options.peft_requests, options.requests)
    theirs = pefts(base, options, lora, spread[:count].tolist(), prompts[:count], lengths[:count])
    unit = "tokens/s" if base.device.type == "cuda" else "tokens/CPU s"
    ratio = [z / o for z, o in zip(measured["zipf"], measured["one"])]
    for name, what in (
        ("none", "no adapter"),
        ("one", "one adapter"),
        ("zipf", f"{options.adapters} adapters by Zipf"),
    ):
        low, high = min(measured[name]), max(measured[name])
        rows.append(
            {"what": what, unit: round(speed[name]), "range": f"{low:.0f}–{high:.0f}"}
        )
    rows[2]["of one adapter"] = f"{median(ratio):.0%}"
    rows.append({"what": "peft's mixed batches", unit: round(theirs), "of one adapter": f"{theirs / speed['one']:.1%}"})
    rows.append({"what": "ours / peft's", unit: f"{speed['zipf'] / theirs:.1f} ×"})
    rows.append({"what": "first token at 60 % load", unit: f"p50 {percentile(first, 50):.0f} ms, p99 {percentile(first, 99):.0f} ms"})
    about = {
        **where(base),
        "rank": options.rank,
        "targets": options.targets,
        "batch": options.batch,
        "slots": options.slots,
        "tokens": options.tokens,
        "registered in": f"{registered:.1f} s",
        "hits device/host/disk": "/".join(str(int(n)) for n in hits),
    }
    report("torch-serving", about, rows)


if __name__ == "__main__":
    main()
