"""
The time of a training step against a plain peft loop on the same model, batch and LoRA: forward, backward, clipping, AdamW.

    python bench/training.py [--batch 8] [--length 128] [--steps 12] …
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import arguments, load, median, ready, report, synchronise, where

from openledger_torch.examples import Example
from openledger_torch.training import Trainer, read_settings


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    base, lora = load(options)
    draw = np.random.default_rng(1)
    tokens = draw.integers(3, base.vocabulary, (options.batch * 4, options.length)).astype(np.int32)
    examples = [Example(row, 1) for row in tokens]
    settings = read_settings(
        dict(
            lora=dict(rank=lora.rank, alpha=lora.alpha, targets=list(lora.targets)), learningRate=1e-4, epochs=1,
            steps=options.steps + 4, batch=options.batch, sequenceLength=options.length, warmup=0.0, seed="1",
        )
    )
    trainer = Trainer(base, settings, examples, None, None, 1 << 20)

    def own() -> None:
        for _ in trainer.slices():
            pass

    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    # Attention as ours: what is compared is what each side adds to the model.
    plain = AutoModelForCausalLM.from_pretrained(options.model, dtype=base.dtype, attn_implementation="sdpa")
    model = get_peft_model(
        plain.to(base.device),
        LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), task_type="CAUSAL_LM"),
    )
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    batches = torch.from_numpy(tokens.astype(np.int64)).to(base.device).split(options.batch)
    turn = 0

    def theirs() -> None:
        nonlocal turn
        ids = batches[turn % len(batches)]
        turn += 1
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()

    times: dict[str, list[float]] = {"ours": [], "peft": []}
    ready(options)
    for _, step in (("ours", own), ("peft", theirs)):
        # Twice: what is recorded is recorded.
        step()
        step()
    # Turn by turn, so that what else the machine does falls on both.
    for _ in range(options.steps):
        for name, step in (("ours", own), ("peft", theirs)):
            synchronise(base)
            began = time.perf_counter()
            step()
            synchronise(base)
            times[name].append((time.perf_counter() - began) * 1000)
    ratio = median([a / b for a, b in zip(times["ours"], times["peft"])])
    rows = [
        {
            "what": name,
            "ms a step (median)": round(median(values), 1),
            "least": round(min(values), 1),
            "tokens/s": round(options.batch * options.length * 1000 / median(values)),
        }
        for name, values in times.items()
    ]
    rows.append({"what": "ours / peft", "ms a step (median)": f"{ratio:.2f} ×", "least": f"{min(times['ours']) / min(times['peft']):.2f} ×"})
    about = {**where(base), "rank": lora.rank, "targets": options.targets, "batch": f"{options.batch} × {options.length}"}
    report("torch-training", about, rows)


if __name__ == "__main__":
    main()
