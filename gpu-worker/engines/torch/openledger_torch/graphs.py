"""
CUDA graphs: a computation is recorded once for each shape of its inputs, and replayed in one call. Small batches consist of
thousands of short kernels, which the CPU starts more slowly than the GPU runs them: replayed, a decoding step or the gradient of an
answer takes what the GPU takes. On devices without graphs the same code can run what it would have recorded, which tests do.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any, Callable, Hashable

import torch
from torch import Tensor

from .base import BaseModel

#: Tokens of a row, places with loss: what is in between is padded.
TOKENS = (8, 16, 32, 48, *range(64, 256, 32), *range(256, 512, 64), *range(512, 1024, 128), *range(1024, 2049, 256))
#: Above this many tokens a GPU is busy anyway.
MOST_TOKENS = 2048


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


class Graphs:
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


def rounded(count: int, sizes: tuple[int, ...]) -> int | None:
    return next((size for size in sizes if size >= count), None)
