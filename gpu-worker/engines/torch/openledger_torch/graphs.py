"""
CUDA graphs: a computation is recorded once for each shape of its inputs, and replayed in one call. Small batches consist of
thousands of short kernels, which the CPU starts more slowly than the GPU runs them: replayed, a decoding step or the gradient of an
answer takes what the GPU takes. On devices without graphs the same code can run what it would have recorded, which tests do.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Callable, Hashable

import torch
from torch import Tensor

from .adapters import Lora, factors_of
from .attribution import Scope, gradient_rows
from .base import BaseModel
from .cache import RaggedCache
from .errors import is_memory
from .examples import Example, pad, token_losses
from .passes import GradientPlan, rescale, scaled
from .plans import MixedPlans
from .tiers import AdapterTiers

#: Sequences a step, tokens of a prompt: what is in between is padded.
ROWS = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
TOKENS = (8, 16, 32, 48, *range(64, 256, 32), *range(256, 512, 64), *range(512, 1024, 128), *range(1024, 2049, 256))
#: Positions that are looked back at are rounded up to this.
SEEN = 128
#: Above this many tokens a GPU is busy anyway.
MOST_TOKENS = 2048
#: Graphs of serving, and of gradients, that are kept.
STEPS = 128
GRADIENTS = 24


class _Graph:
    def __init__(self, body: Callable[[], Tensor], pool: tuple[int, int] | None) -> None:
        """Runs `body` once, and records it. What it reads and writes stays where it is; its result is valid until the next
        graph of the same pool is run."""
        self._body = body
        self._graph: torch.cuda.CUDAGraph | None = None
        self.result: Tensor
        if pool is None:
            self.result = body()
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            first = body().clone()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._out = body()
        self.result = first

    def run(self) -> None:
        if self._graph is None:
            self.result = self._body()
            return
        self._graph.replay()
        self.result = self._out


class _Graphs:
    """The last few that were used. `rehearse`: nothing is recorded, bodies are run."""

    def __init__(self, device: torch.device, most: int, rehearse: bool) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, tuple[_Graph, object]] = OrderedDict()
        self._rehearse = rehearse
        self._pool: tuple[int, int] | None = None
        self.on = True
        self.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def run(self, key: Hashable, write: Callable[[object], None], make: Callable[[], object], body) -> Tensor | None:
        """
        The result for inputs that `write` puts into what `make` made for the key; `body` computes with these. None when recording
        fails, for memory that is short or a driver that cannot: then, and from then on, do without.
        """
        if not self.on:
            return None
        found = self._kept.get(key)
        try:
            if found is None:
                inputs = make()
                write(inputs)
                graph = _Graph(lambda: body(inputs), self._pool)
                self._kept[key] = (graph, inputs)
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
                return graph.result
        except Exception as error:
            if self._rehearse and not is_memory(error):
                raise
            print(f"no CUDA graphs from now on: {error}", file=sys.stderr, flush=True)
            self.clear()
            self.on = False
            return None
        graph, inputs = found
        self._kept.move_to_end(key)
        write(inputs)
        graph.run()
        return graph.result

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
        """`cache` has a row more than `batch`: for the padding of prompts."""
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
        if padded is None or width is None or padded * width > MOST_TOKENS:
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

        logits = self._graphs.run(key, write, make, body)
        return None if logits is None else logits[:count]

    def clear(self) -> None:
        self._graphs.clear()


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
        made = self._recorded(batch[0], *adapters[0], scope) if self._graphs is not None and len(batch) == 1 else None
        return gradient_rows(self._base, batch, adapters, scope) if made is None else made

    def _recorded(self, example: Example, lora: Lora, flat: Tensor, scope: Scope) -> tuple[Tensor, Tensor] | None:
        base = self._base
        padded = pad([example], torch.device("cpu"), scope.stride)
        bearing = padded.places.numel()
        width, places = _rounded(padded.ids.shape[1], TOKENS), _rounded(bearing, TOKENS)
        if width is None or places is None:
            return None
        shape = (lora.rank, frozenset(lora.targets), scope)
        key = (*shape, width, places)
        if key not in self._seen:
            # A shape that comes once is not worth recording.
            self._seen[key] = None
            while len(self._seen) > 256:
                self._seen.popitem(last=False)
            return None
        whole, own = factors_of(base, lora), factors_of(base, lora, from_layer=scope.from_layer)
        numbers = torch.zeros(width + 2 * places, dtype=torch.int64)
        numbers[: padded.ids.shape[1]] = padded.ids[0]
        numbers[width : width + bearing] = padded.places
        numbers[width + places : width + places + bearing] = padded.targets
        # The part of each place in the mean loss, and the adapter's scale.
        reals = torch.zeros(places + 1)
        reals[:bearing] = 1 / bearing
        reals[places] = lora.scale

        def make() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            new = lambda count, dtype=torch.float32: torch.zeros(count, dtype=dtype, device=base.device)  # noqa: E731
            large = self._large.pop(shape, None) or (new(whole.size), new(own.size)[None])
            self._large[shape] = large
            while len(self._large) > 4:
                self._large.popitem(last=False)
            return new(width + 2 * places, torch.int64), new(places + 1), *large

        def write(inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
            for mine, given in zip(inputs, (numbers, reals, flat)):
                mine.copy_(given)

        def body(inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
            given, weights, factors, out = inputs
            ids, at, targets = given.split([width, places, places])
            scale = weights[places]
            plan = GradientPlan(whole, scaled(base, whole, [factors], [scale])[0], own, out, scope.from_layer)
            with torch.enable_grad(), base.precision.wide(), base.sites.using(plan):
                loss = (token_losses(base, ids[None], at, targets, scope.from_layer) * weights[:places]).sum()
                loss.backward()
            rescale(base, own, out, [scale])
            # The loss behind the gradient.
            return torch.cat([out, loss.detach()[None, None]], dim=1)

        assert self._graphs is not None
        made = self._graphs.run(key, write, make, body)
        return None if made is None else (made[:, :-1], made[:, -1])
