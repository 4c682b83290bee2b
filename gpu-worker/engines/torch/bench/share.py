"""
What attribution adds to answers, inside the engine: gradients and features of answers of 96 tokens, one at a time and in saturated
batches of answers by different adapters. `test/bench/attribution/share.ts` measures the same through a worker.

    python bench/share.py [--model DIR] [--device cuda] [--batch 32] [--answers 64] …
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque

import numpy as np
import torch
from common import adapter, arguments, load, median, ready, report, synchronise, where

from openledger_torch.adapters import factors_of, read_adapter
from openledger_torch.attribution import Scope
from openledger_torch.examples import Example
from openledger_torch.features import Features
from openledger_torch.fitting import Fit, FitSettings
from openledger_torch.probes import Probe, Probes
from openledger_torch.serving import Limits, Sequence, Server, read_request
from openledger_torch.tiers import AdapterTiers, Entry, now_ms

PROMPT, TOKENS = 34, 96
MICRO_TOKENS = 8192
SEED = 5


class Engine:
    """Server and probes, as a worker's process runs them by turns."""

    def __init__(self, base, lora, options, directory: str) -> None:
        self.base = base
        self.lora = lora
        self.batch = options.batch
        self.tiers = AdapterTiers(base, directory, 2 * options.batch, 8 << 30)
        self.server = Server(base, self.tiers, Limits(options.batch, 4 * options.answers, 2048, 16 << 30))
        self.probes = Probes(base, MICRO_TOKENS)
        self.entries: list[Entry] = []
        self.flats: list[torch.Tensor] = []
        for number in range(min(options.adapters, options.batch)):
            files = adapter(base, lora, number)
            self.entries.append(self.tiers.register(number + 1, *files))
            self.flats.append(read_adapter(base, *files)[1].to(base.device))
        self._draw = np.random.default_rng(2)

    def fit(self, records: int, width: int, scope: Scope) -> Features:
        ids = self._draw.integers(3, self.base.vocabulary, (records, 96)).astype(np.int32)
        sample = range(records)
        settings = FitSettings(min(256, records), width, SEED, 0.01, 32, scope.from_layer, sample)
        with tempfile.TemporaryDirectory() as directory:
            fit = Fit(
                self.base, [Example(row, 1) for row in ids], self.lora, self.flats[0], settings, MICRO_TOKENS,
                os.path.join(directory, "fit.pt"),
            )
            for _ in fit.run():
                pass
            bases, vectors, *_ = fit.result
        return Features(bases, SEED, width, vectors, self.base.device)

    def answers(self, count: int, scope: Scope | None, features: Features | None) -> float:
        """Milliseconds for `count` answers, all asked at once; with what attributes them if there is a scope."""
        left = count
        ended: deque[Probe] = deque()

        def ask(number: int) -> None:
            which = number % len(self.entries)
            prompt = self._draw.integers(3, self.base.vocabulary, PROMPT).tolist()
            made: list[int] = []

            def done(_how) -> None:
                nonlocal left
                if scope is None:
                    left -= 1
                    return
                assert len(made) == TOKENS
                example = Example(np.array(prompt + made, dtype=np.int32), PROMPT)
                ended.append(self.probes.add([example], self.lora, self.flats[which], scope, features))

            value = dict(prompt=prompt, maxTokens=TOKENS, temperature=1, topP=1, seed=str(number))
            request, limit = read_request(self.base, value, frozenset())
            self.server.add(Sequence(request, self.entries[which], made.append, done, limit, now_ms()))

        synchronise(self.base)
        began = now_ms()
        for number in range(count):
            ask(number)
        half = max(1, self.batch // 2)
        while left > 0:
            worked = self.server.step()
            while ended and ended[0].done:
                ended.popleft()
                left -= 1
            if ended and (self.server.active < half or self.probes.ripe(half)):
                self.probes.step(ended[0])
            elif not worked and left > 0:
                time.sleep(2e-4)
        synchronise(self.base)
        return now_ms() - began


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(targets="all")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--answers", type=int, default=64, help="in saturated batches")
    parser.add_argument("--records", type=int, default=64, help="that bases are made of")
    parser.add_argument("--width", type=int, default=65_536, help="of sketches")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    base, lora = load(options)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        engine = Engine(base, lora, options, directory)
        last = base.layers - -(-base.layers // 4)
        scopes = {"all layers": Scope(), "last quarter": Scope(last), "last quarter, one token in four": Scope(last, 4)}
        bases = {name: engine.fit(options.records, options.width, scope) for name, scope in list(scopes.items())[:2]}
        bases["last quarter, one token in four"] = bases["last quarter"]
        ready(options)
        # Twice: what is recorded is recorded.
        for _ in range(2):
            engine.answers(1, None, None)
        alone = [engine.answers(1, None, None) for _ in range(options.rounds)]
        for _ in range(2):
            engine.answers(options.answers, None, None)
        full = [engine.answers(options.answers, None, None) / options.answers for _ in range(options.rounds)]
        rows.append({"what": "generation", "alone, ms": f"{median(alone):.1f}", "saturated, ms an answer": f"{median(full):.2f}"})
        for name, scope in scopes.items():
            for _ in range(3):
                engine.answers(1, scope, bases[name])
            with_it = [engine.answers(1, scope, bases[name]) for _ in range(options.rounds)]
            engine.answers(options.answers, scope, bases[name])
            saturated = [engine.answers(options.answers, scope, bases[name]) / options.answers for _ in range(options.rounds)]
            added, part = median(with_it) - median(alone), median(saturated) - median(full)
            rows.append(
                {
                    "what": f"and attribution: {name}",
                    "alone, ms": f"{median(with_it):.1f}",
                    "of the answer": f"{added / median(alone):.1%}",
                    "saturated, ms an answer": f"{median(saturated):.2f}",
                    "of all": f"{part / median(saturated):.1%}",
                }
            )
            print(rows[-1], flush=True)
        engine.server.close()
        engine.tiers.shut()
    about = {
        **where(base),
        "adapter": f"{factors_of(base, lora).size / 1e6:.1f} M",
        "batch": options.batch,
        "adapters": len(engine.entries),
        "tokens": f"{PROMPT} + {TOKENS}",
    }
    report("torch-share", about, rows)


if __name__ == "__main__":
    main()
