"""Gradients of answers and steps of training as CUDA graphs: passes over few tokens, forward and backward."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Hashable, Sequence

import torch
from torch import Tensor

from .adapters import Lora, factors_of
from .attribution import Scope, gradient_rows
from .base import BaseModel
from .examples import Example, pad, response_losses, token_losses
from .graphs import MOST_TOKENS, TOKENS, Graphs, can_record, rounded
from .passes import GradientPlan, rescale, scaled
from .sites import SharedPlan

#: Graphs that are kept, of gradients and of a training.
MOST = 24


@dataclass(frozen=True)
class _Packed:
    """Examples padded to a shape that is recorded: ids, places and targets behind one another; the part of each place in the objective."""

    rows: int
    width: int
    places: int
    numbers: Tensor
    weights: Tensor

    def split(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ids [rows, width], places [n], targets [n] out of numbers that lie as these."""
        ids, places, targets = numbers.split([self.rows * self.width, self.places, self.places])
        return ids.view(self.rows, self.width), places, targets


def _packed(batch: Sequence[Example], parts: Sequence[float], stride: int = 1) -> _Packed | None:
    """`parts` [rows]: what each of an example's losses counts. None for shapes that are not worth recording."""
    padded = pad(batch, torch.device("cpu"), stride)
    (rows, tokens), bearing = padded.ids.shape, padded.places.numel()
    width, places = rounded(tokens, TOKENS), rounded(bearing, TOKENS)
    if width is None or places is None or rows * width > MOST_TOKENS:
        return None
    numbers = torch.zeros(rows * width + 2 * places, dtype=torch.int64)
    numbers[: rows * width].view(rows, width)[:, :tokens] = padded.ids
    row = padded.places // tokens
    numbers[rows * width :][:bearing] = padded.places + row * (width - tokens)
    numbers[rows * width + places :][:bearing] = padded.targets
    weights = torch.zeros(places)
    weights[:bearing] = torch.tensor(parts, dtype=torch.float32)[row]
    return _Packed(rows, width, places, numbers, weights)


class GradientGraphs:
    """Gradients of single answers, as they come one at a time; of several in one pass the GPU has enough to do."""

    def __init__(self, base: BaseModel, rehearse: bool = False) -> None:
        self._base = base
        self._graphs = Graphs(base.device, MOST, rehearse) if rehearse or can_record(base) else None
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        #: Factors and gradients of adapters of one shape: large, and the same for all lengths of answers.
        self._large: OrderedDict[Hashable, tuple[Tensor, Tensor]] = OrderedDict()

    def rows(self, batch: list[Example], adapters: list[tuple[Lora, Tensor]], scope: Scope) -> tuple[Tensor, Tensor]:
        """What {@link gradient_rows} gives; valid until the next call."""
        if self._graphs is not None and self._graphs.on and len(batch) == 1:
            made = self._recorded(self._graphs, batch[0], *adapters[0], scope)
            if made is not None:
                return made
        return gradient_rows(self._base, batch, adapters, scope)

    def _recorded(
        self, graphs: Graphs, example: Example, lora: Lora, flat: Tensor, scope: Scope
    ) -> tuple[Tensor, Tensor] | None:
        base = self._base
        packed = _packed([example], [1 / example.bearing(scope.stride)], scope.stride)
        if packed is None:
            return None
        shape = (lora.rank, frozenset(lora.targets), scope)
        key = (*shape, packed.width, packed.places)
        if key not in self._seen:
            # A shape that comes once is not worth recording.
            self._seen[key] = None
            while len(self._seen) > 256:
                self._seen.popitem(last=False)
            return None
        whole, own = factors_of(base, lora), factors_of(base, lora, from_layer=scope.from_layer)
        # The adapter's scale goes with the weights.
        reals = torch.cat([packed.weights, torch.tensor([lora.scale])])

        def make() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            new = lambda count: torch.zeros(count, device=base.device)  # noqa: E731
            large = self._large.pop(shape, None) or (new(whole.size), new(own.size)[None])
            self._large[shape] = large
            while len(self._large) > 4:
                self._large.popitem(last=False)
            return torch.zeros_like(packed.numbers, device=base.device), new(reals.numel()), *large

        def write(inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
            for mine, given in zip(inputs, (packed.numbers, reals, flat)):
                mine.copy_(given)

        def body(inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
            numbers, given, factors, out = inputs
            weights, scale = given[:-1], given[-1]
            plan = GradientPlan(whole, scaled(base, whole, [factors], [scale])[0], own, out, scope.from_layer)
            with torch.enable_grad(), base.precision.wide(), base.sites.using(plan):
                loss = (token_losses(base, *packed.split(numbers), scope.from_layer) * weights).sum()
                loss.backward()
            rescale(base, own, out, [scale])
            # The loss behind the gradient.
            return torch.cat([out, loss.detach()[None, None]], dim=1)

        made = graphs.run(key, write, make, body)
        return made[:, :-1], made[:, -1]


class TrainingPasses:
    """Forward and backward of a training's micro-batches; slopes gather where the plan's factors have them."""

    def __init__(self, base: BaseModel, plan: SharedPlan, rehearse: bool = False) -> None:
        self._base = base
        self._plan = plan
        self._graphs = Graphs(base.device, MOST, rehearse) if rehearse or can_record(base) else None

    def clear(self) -> None:
        """Gives the memory back."""
        if self._graphs is not None:
            self._graphs.clear()

    def backward(self, batch: Sequence[Example], weights: Sequence[float]) -> Tensor:
        """The objective is Σ weight · mean loss. Gives the summed loss of all tokens, on the device."""
        parts = [weight / example.responses for weight, example in zip(weights, batch)]
        if self._graphs is not None and self._graphs.on:
            packed = _packed(batch, parts)
            if packed is not None:
                return self._recorded(self._graphs, packed)
        padded = pad(batch, self._base.device)
        of_rows = torch.tensor(parts, device=self._base.device)
        with self._base.sites.using(self._plan):
            sums = response_losses(self._base, padded)
        (sums * of_rows).sum().backward()
        return sums.detach().sum()

    def _recorded(self, graphs: Graphs, packed: _Packed) -> Tensor:
        base = self._base

        def make() -> tuple[Tensor, Tensor]:
            return torch.zeros_like(packed.numbers, device=base.device), torch.zeros_like(packed.weights, device=base.device)

        def write(inputs: tuple[Tensor, Tensor]) -> None:
            for mine, given in zip(inputs, (packed.numbers, packed.weights)):
                mine.copy_(given)

        def body(inputs: tuple[Tensor, Tensor]) -> Tensor:
            numbers, weights = inputs
            with base.sites.using(self._plan):
                each = token_losses(base, *packed.split(numbers))
            (each * weights).sum().backward()
            return (each.detach() * (weights > 0)).sum()

        return graphs.run((packed.rows, packed.width, packed.places), write, make, body)
