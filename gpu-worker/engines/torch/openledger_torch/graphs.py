"""
CUDA graphs: a computation is recorded once for each shape of its inputs, and replayed in one call. Small batches consist of
thousands of short kernels, which the CPU starts more slowly than the GPU runs them: replayed, a decoding step or the gradient of an
answer takes what the GPU takes. On devices without graphs the same code can run what it would have recorded, which tests do.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Callable, Hashable, Sequence

import torch
from torch import Tensor

from .adapters import Lora, factors_of
from .attribution import Scope, gradient_rows
from .base import BaseModel
from .cache import RaggedCache
from .examples import Example, pad, response_losses, token_losses
from .passes import GradientPlan, rescale, scaled
from .plans import MixedPlans
from .sites import SharedPlan
from .tiers import AdapterTiers

#: Sequences a step, tokens of a prompt: what is in between is padded.
ROWS = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
TOKENS = (8, 16, 32, 48, *range(64, 256, 32), *range(256, 512, 64), *range(512, 1024, 128), *range(1024, 2049, 256))
#: Positions that are looked back at are rounded up to this.
SEEN = 128
#: Above this many tokens a GPU is busy anyway.
MOST_TOKENS = 2048
#: Graphs of serving, of gradients, of a training that are kept.
STEPS = 128
GRADIENTS = 24
TRAININGS = 24


class _Graph:
    """A computation whose inputs and results stay where they are. A result is valid until another of the same pool is run."""

    def __init__(self, body: Callable[[], Tensor]) -> None:
        self._body = body
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def plain(self, aside: bool) -> Tensor:
        """`aside`: as recording wants it to have been run before."""
        if not aside:
            return self._body()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            result = self._body().clone()
        torch.cuda.current_stream().wait_stream(side)
        return result

    def record(self, pool: tuple[int, int]) -> None:
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            result = self._body()
        self._recorded = graph, result

    def run(self) -> Tensor:
        if self._recorded is None:
            return self._body()
        graph, result = self._recorded
        graph.replay()
        return result


class _Graphs:
    """The last few that were used. `rehearse`: nothing is recorded, bodies are run."""

    def __init__(self, device: torch.device, most: int, rehearse: bool) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, tuple[_Graph, object]] = OrderedDict()
        self._rehearse = rehearse
        self._pool: tuple[int, int] | None = None
        #: False once recording failed, for memory that is short or a driver that cannot: from then on do without.
        self.on = True
        self.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def run(self, key: Hashable, write: Callable[[Any], None], make: Callable[[], Any], body: Callable[[Any], Tensor]) -> Tensor:
        """The result of `body` for inputs that `write` puts into what `make` made for the key."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            graph, inputs = found
            write(inputs)
            return graph.run()
        try:
            inputs = make()
            write(inputs)
            graph = _Graph(lambda: body(inputs))
            result = graph.plain(self._pool is not None)
        except Exception:
            # What was recorded may be what takes the memory.
            self.clear()
            raise
        try:
            if self._pool is not None:
                graph.record(self._pool)
        except Exception as error:
            print(f"no CUDA graphs from now on: {error}", file=sys.stderr, flush=True)
            self.clear()
            self.on = False
            return result
        self._kept[key] = (graph, inputs)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return result

    def clear(self) -> None:
        self._kept.clear()
        # A pool goes with the last of its graphs.
        self._pool = None if self._rehearse else torch.cuda.graph_pool_handle()


def can_record(base: BaseModel) -> bool:
    return base.device.type == "cuda" and base.lean is not None


def _rounded(count: int, sizes: tuple[int, ...]) -> int | None:
    return next((size for size in sizes if size >= count), None)


class ServingGraphs:
    """Forward passes of a server's batches."""

    def __init__(
        self, base: BaseModel, tiers: AdapterTiers, cache: RaggedCache, plans: MixedPlans, batch: int, rehearse: bool = False
    ) -> None:
        """`cache` has a row more than `batch`: for the padding of prompts. `rehearse`: bodies are run, not recorded."""
        self._base = base
        self._tiers = tiers
        self._cache = cache
        self._plans = plans
        self._batch = batch
        self._graphs = _Graphs(base.device, STEPS, rehearse)
        self._version: tuple | None = None

    def forward(self, ids: list[list[int]], rows: list[int], starts: list[int], slots: list[int], lasts: list[int]) -> Tensor | None:
        """
        Logits [n, vocabulary] of the tokens at `lasts`; None where there is no graph for it. One token each of rows 0 … n − 1
        is a step of decoding.
        """
        count, tokens = len(rows), len(ids[0])
        step = tokens == 1 and rows == list(range(count))
        padded = _rounded(count, ROWS) if count <= self._batch else None
        width = 1 if step else _rounded(tokens, TOKENS)
        if not self._graphs.on or padded is None or width is None or padded * width > MOST_TOKENS:
            return None
        padded = min(padded, self._batch)
        seen = -(-(max(starts) + width) // SEEN) * SEEN
        cache = self._cache
        if not step and max(starts) + width > cache.capacity:
            return None
        cache.reserve(max(starts) + width)
        seen = min(seen, cache.capacity)
        adapters = any(slots)
        spare = padded - count
        all_slots = slots + [0] * spare
        # What recorded graphs read must still be where it was.
        version = (cache.version, self._tiers.version)
        if version != self._version:
            self._graphs.clear()
            self._version = version
        gathered = step and adapters and not self._plans.large(padded)
        plan = self._plans.of(all_slots, 1, True) if gathered else None
        key = (step, padded, width, seen, adapters, self._plans.held if gathered else 0)
        idle = list(range(count, padded)) if step else [self._batch] * spare
        flat = [
            *(id for row in ids for id in row + [0] * (width - tokens)), *[0] * (spare * width),
            *rows, *idle, *starts, *[0] * spare, *lasts, *[0] * spare, *all_slots,
        ]
        device = self._base.device
        size = padded * width

        def make() -> Tensor:
            return torch.zeros(size + 4 * padded, dtype=torch.int64, device=device)

        def write(inputs: Tensor) -> None:
            inputs.copy_(torch.tensor(flat))

        def body(inputs: Tensor) -> Tensor:
            read, index, first, last, which = inputs.split([size, padded, padded, padded, padded])
            masks = cache.place(None if step else index, first, width, seen)
            used = plan if gathered or not adapters else self._plans.within(which, width)
            with self._base.sites.using(used):
                return self._base.lean.decode(read.view(padded, width), cache, masks, None if step else last)

        return self._graphs.run(key, write, make, body)[:count]

    def clear(self) -> None:
        self._graphs.clear()


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
    width, places = _rounded(tokens, TOKENS), _rounded(bearing, TOKENS)
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
        self._graphs = _Graphs(base.device, GRADIENTS, rehearse) if rehearse or can_record(base) else None
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
        self, graphs: _Graphs, example: Example, lora: Lora, flat: Tensor, scope: Scope
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
        self._graphs = _Graphs(base.device, TRAININGS, rehearse) if rehearse or can_record(base) else None

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

    def _recorded(self, graphs: _Graphs, packed: _Packed) -> Tensor:
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
