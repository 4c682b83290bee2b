"""
Gradients, or features of them, that several calls ask for, taken together: one pass forward and backward for examples of
different adapters, as far as they have the same shape; features each in the bases of its adapter. Answers of a full batch end
one by one, each with its query; a pass for each would leave most of a GPU idle and hold up those who decode every time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Sequence

from torch import Tensor

from .adapters import Lora, factors_of
from .attribution import Scope, check_scope
from .base import BaseModel
from .errors import is_memory
from .examples import Example, Room
from .features import Features
from .pass_graphs import GradientGraphs
from .tiers import now_ms

#: Examples a pass, and bytes of their gradients.
MOST = 64
ROW_BYTES = {"cpu": 1 << 30, "cuda": 4 << 30}
#: How long a query may wait for others, in passes as long as the last one, and in milliseconds at most.
PASSES = 2.0
LONGEST_MS = 500.0


@dataclass(eq=False)
class Probe:
    """A call's examples, all of one adapter."""

    examples: Sequence[Example]
    lora: Lora
    flat: Tensor
    scope: Scope
    since: float
    #: What features are made with; None where the gradients themselves are wanted.
    features: Features | None = None
    #: Results in order, on the CPU: gradients [rows, size], or what `Features.reduced` makes of them [rows, k + 1];
    #: float64 losses.
    results: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return len(self.losses) == len(self.examples)

    @property
    def shape(self) -> tuple:
        return (self.lora.rank, frozenset(self.lora.targets), self.scope)


def rows_a_pass(base: BaseModel, lora: Lora, scope: Scope) -> int:
    """As many as memory is meant for: gradients of adapters of large models are 80 to 160 MB each."""
    size = factors_of(base, lora, from_layer=scope.from_layer).size
    return max(1, min(MOST, ROW_BYTES[base.device.type] // (4 * size)))


class Probes:
    def __init__(self, base: BaseModel, micro_tokens: int, rehearse: bool = False) -> None:
        """`rehearse`: as of {@link GradientGraphs}."""
        self._base = base
        self._gradients = GradientGraphs(base, rehearse)
        self._micro_tokens = micro_tokens
        self._waiting: deque[Probe] = deque()
        self._pass_ms = 0.0
        self.passes = 0

    def add(
        self,
        examples: Sequence[Example],
        lora: Lora,
        flat: Tensor,
        scope: Scope,
        features: Features | None = None,
    ) -> Probe:
        check_scope(self._base, examples, lora, scope)
        probe = Probe(examples, lora, flat, scope, now_ms(), features)
        if not probe.done:
            self._waiting.append(probe)
        return probe

    def leave(self, probe: Probe) -> None:
        if probe in self._waiting:
            self._waiting.remove(probe)

    def ripe(self, enough: int) -> bool:
        """Whether to wait no longer: `enough` examples are there, or the first one's patience is over."""
        waiting = sum(len(each.examples) - len(each.losses) for each in self._waiting)
        patience = min(LONGEST_MS, PASSES * self._pass_ms)
        return waiting >= enough or now_ms() - self._waiting[0].since >= patience

    def step(self, probe: Probe) -> None:
        """A pass for the next of the probe's examples, and whatever of others fits in. What fails is the probe's fault alone."""
        try:
            most = rows_a_pass(self._base, probe.lora, probe.scope)
            self._pass(probe, [probe, *(each for each in self._waiting if each is not probe)], most)
        except Exception as error:
            if not is_memory(error):
                raise
            self._pass(probe, [probe], 1)

    def _pass(self, probe: Probe, candidates: Sequence[Probe], most: int) -> None:
        room = Room(self._base, self._micro_tokens, most, probe.scope.stride)
        chosen: list[tuple[Probe, list[Example]]] = []
        for each in candidates:
            if each.shape != probe.shape:
                continue
            some: list[Example] = []
            for example in each.examples[len(each.losses) :]:
                if not room.take(example):
                    break
                some.append(example)
            if some:
                chosen.append((each, some))
        began = now_ms()
        rows, losses = self._gradients.rows(
            [example for _, some in chosen for example in some],
            [(each.lora, each.flat) for each, some in chosen for _ in some],
            probe.scope,
        )
        pieces = rows.split([len(some) for _, some in chosen])
        made = [piece if each.features is None else each.features.reduced(piece) for (each, _), piece in zip(chosen, pieces)]
        means = losses.double().tolist()
        at = 0
        for (each, some), result in zip(chosen, made):
            each.results.append(result.cpu())
            each.losses += means[at : at + len(some)]
            at += len(some)
            if each.done:
                self.leave(each)
        self._pass_ms = now_ms() - began
        self.passes += 1
