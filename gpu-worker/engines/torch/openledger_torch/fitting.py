"""
Bases from an adapter's training records, and every record reduced in them (docs/method.md, steps 1 to 4), on the device. Where
gradients of all records do not fit into memory, they are made again where they are needed: three passes over the records (covariances;
Λ; sketches), of which nothing is kept but sums, the sketches of the sample that V_k is made from, and k numbers a record.
`attribution/features.ts` is the reference, over gradients that crossed.

What was reached is kept in a file from time to time: whoever begins with that file goes on from there.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Generator, Iterator, Sequence, TypeVar

import torch
from torch import Tensor

from .adapters import Lora, factors_of
from .attribution import Covariances, Scope, check_scope, gradient_rows
from .base import BaseModel
from .eigenbases import Layout, Turn, batches_of, eigenbasis_steps
from .errors import EngineFault, is_memory
from .examples import Example, batches
from .feature_bases import shapes_of
from .features import TURNED_BYTES, Eigenbases, Features, along
from .probes import rows_a_pass
from .sketches import check_width, direction_steps

#: Between two writings of what was reached: seconds, and as many times what the last one took.
KEEP_SECONDS = 60.0
KEEP_TIMES = 20
#: Bytes of gradients that are kept rather than made again.
KEPT_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}

#: A phase, and how much of it is done, 0 … 1.
Progress = tuple[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class FitSettings:
    k: int
    sketch_width: int
    sketch_seed: int
    damping: float
    block: int
    from_layer: int
    #: Records that V_k is made from, ascending.
    sample: Sequence[int]


@dataclass
class Reached:
    """All there is of a fit. Tensors but `sums` are on the device; `at`: records that `phase` is done with."""

    phase: str = "covariances"
    at: int = 0
    #: Sides of each matrix's covariances, float64.
    sums: list[Tensor] = field(default_factory=list)
    rank: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    #: Σ of squared turned gradients, float64, later their mean, float32.
    moments: Tensor | None = None
    #: Of the sample, [rows, width].
    sketches: Tensor | None = None
    vectors: Tensor | None = None
    energy: Tensor | None = None
    #: Of every record its coordinates along V_k and the squared norm of its sketch, [records, k + 1].
    reduced: Tensor | None = None


class Fit:
    def __init__(
        self,
        base: BaseModel,
        examples: Sequence[Example],
        lora: Lora,
        flat: Tensor,
        settings: FitSettings,
        micro_tokens: int,
        file: str | None = None,
    ) -> None:
        """Faults: BAD_REQUEST, BAD_EXAMPLE."""
        self._base = base
        self._examples = examples
        self._lora = lora
        self._flat = flat
        self._settings = settings
        self._micro_tokens = micro_tokens
        self._file = file
        self._scope = Scope(settings.from_layer)
        if not examples:
            raise EngineFault("BAD_EXAMPLE", "no examples to make bases of")
        check_scope(base, examples, lora, self._scope)
        check_width(settings.sketch_width)
        if not settings.damping > 0:
            raise EngineFault("BAD_REQUEST", f"damping {settings.damping}")
        sample = settings.sample
        if not sample or list(sample) != sorted(set(sample)) or not 0 <= sample[0] <= sample[-1] < len(examples):
            raise EngineFault("BAD_REQUEST", "a sample that is none of the records")
        self._sampled = frozenset(sample)
        factors = factors_of(base, lora, from_layer=settings.from_layer)
        self.layout = Layout(shapes_of(factors), settings.block)
        self._most = rows_a_pass(base, lora, self._scope)
        # The first so many records' gradients.
        self._kept: list[Tensor] = []
        self._keeps = min(len(examples), KEPT_BYTES[base.device.type] // (4 * self.layout.size))
        self._written = time.monotonic()
        self._pause = KEEP_SECONDS

    def run(self) -> Iterator[Progress]:
        """A slice a turn; `result` is there when it ends."""
        reached = self._reached = self._read() or Reached()
        if reached.phase == "covariances":
            yield from self._covariances(reached)
        if reached.phase == "moments":
            yield from self._moments(reached)
        if reached.phase == "sketches":
            yield from self._sketches(reached)
        if reached.phase == "rows":
            yield from self._rows(reached)

    @property
    def result(self) -> tuple[Eigenbases, Tensor, Tensor, Tensor]:
        """Bases, V_k [k, width], the energy along each of its vectors [k], and of every record what `Reached.reduced` says."""
        reached = self._reached
        assert reached.vectors is not None and reached.energy is not None and reached.reduced is not None
        return self._bases(reached), reached.vectors, reached.energy, reached.reduced

    # ---- phases ----------------------------------------------------------------------------------------------------

    def _covariances(self, reached: Reached) -> Iterator[Progress]:
        before, first = reached.sums, reached.at
        sums = self._sums()

        def state() -> Reached:
            return Reached("covariances", reached.at, together(before, sums.finish()))

        for batch in batches(self._base, self._examples[first:], self._micro_tokens, 64):
            sums.add(batch)
            reached.at += len(batch)
            yield from self._told(state)
        reached.sums = together(before, sums.finish())
        device = self._base.device
        pairs = [(reached.sums[i].to(device), reached.sums[i + 1].to(device)) for i in range(0, len(reached.sums), 2)]
        reached.rank, reached.hidden = yield from as_progress(eigenbasis_steps(self.layout, pairs), self._progress())
        reached.sums = []
        reached.moments = torch.zeros(self.layout.size, dtype=torch.float64, device=device)
        yield from self._begin("moments")

    def _moments(self, reached: Reached) -> Iterator[Progress]:
        assert reached.moments is not None
        turn = Turn(self.layout, reached.rank, reached.hidden, self._base.device)
        for places, rows in self._gradients(range(reached.at, len(self._examples))):
            for some in batches_of(rows, 4 * self.layout.size, TURNED_BYTES[rows.device.type]):
                reached.moments += turn(some).square_().sum(dim=0, dtype=torch.float64)
            reached.at = places[-1] + 1
            yield from self._told()
        reached.moments = (reached.moments / len(self._examples)).float()
        yield from self._begin("sketches")

    def _sketches(self, reached: Reached) -> Iterator[Progress]:
        device, settings = self._base.device, self._settings
        features = self._features(reached)
        if reached.sketches is None:
            reached.sketches = torch.zeros(len(settings.sample), settings.sketch_width, device=device)
        for places, rows in self._gradients(settings.sample[reached.at :]):
            reached.sketches[reached.at : reached.at + len(places)] = features.sketched(rows)
            reached.at += len(places)
            yield from self._told()
        directions = direction_steps(reached.sketches, settings.k)
        reached.vectors, reached.energy = yield from as_progress(directions, self._progress())
        reached.reduced = torch.zeros(len(self._examples), settings.k + 1, device=device)
        places = torch.tensor(settings.sample, device=device)
        reached.reduced[places] = along(reached.sketches, reached.vectors)
        reached.sketches = None
        yield from self._begin("rows")

    def _rows(self, reached: Reached) -> Iterator[Progress]:
        """Those that are not of the sample."""
        assert reached.reduced is not None and reached.vectors is not None
        features = self._features(reached)
        wanted = [at for at in range(reached.at, len(self._examples)) if at not in self._sampled]
        for places, rows in self._gradients(wanted):
            made = along(features.sketched(rows), reached.vectors)
            reached.reduced[torch.tensor(places, device=made.device)] = made
            reached.at = places[-1] + 1
            yield from self._told()

    def _sums(self) -> Covariances:
        settings = self._settings
        return Covariances(self._base, self._lora, self._flat, settings.from_layer, settings.block)

    def _bases(self, reached: Reached) -> Eigenbases:
        assert reached.moments is not None
        return Eigenbases(self.layout, reached.rank, reached.hidden, reached.moments, self._settings.damping)

    def _features(self, reached: Reached) -> Features:
        settings = self._settings
        return Features(self._bases(reached), settings.sketch_seed, settings.sketch_width, None, self._base.device)

    # ---- gradients -------------------------------------------------------------------------------------------------

    def _gradients(self, wanted: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Some records' places and gradients at a time, in order: kept ones, or made again."""
        kept = [at for at in wanted if at < len(self._kept)]
        for start in range(0, len(kept), self._most):
            some = kept[start : start + self._most]
            yield some, torch.stack([self._kept[at] for at in some])
        others = list(wanted[len(kept) :])
        for batch in batches(self._base, [self._examples[at] for at in others], self._micro_tokens, self._most):
            places, others = others[: len(batch)], others[len(batch) :]
            for some, rows in self._made(places):
                for at, row in zip(some, rows):
                    if at == len(self._kept) < self._keeps:
                        self._kept.append(row.clone())
                yield some, rows

    def _made(self, places: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        """One pass, or one for each where memory does not suffice."""
        adapter = (self._lora, self._flat)
        try:
            rows, _ = gradient_rows(self._base, [self._examples[at] for at in places], [adapter] * len(places), self._scope)
        except Exception as error:
            if not is_memory(error) or len(places) == 1:
                raise
            rows = None
        if rows is not None:
            yield places, rows
            return
        for at in places:
            yield [at], gradient_rows(self._base, [self._examples[at]], [adapter], self._scope)[0]

    # ---- what was reached ------------------------------------------------------------------------------------------

    def _begin(self, phase: str) -> Iterator[Progress]:
        self._reached.phase, self._reached.at = phase, 0
        yield from self._told()

    def _told(self, state: Callable[[], Reached] | None = None) -> Iterator[Progress]:
        """Tells how far it is, and keeps it (`state`, if that is not `Reached` as it stands) when the time has come."""
        now = time.monotonic()
        if self._file is not None and now - self._written >= self._pause:
            self._write(self._reached if state is None else state(), self._file)
            self._written = time.monotonic()
            self._pause = max(KEEP_SECONDS, KEEP_TIMES * (self._written - now))
        yield self._progress()

    def _progress(self) -> Progress:
        reached = self._reached
        name, start, part = TOLD[reached.phase]
        of = len(self._settings.sample if reached.phase == "sketches" else self._examples)
        return name, start + part * reached.at / of

    def _write(self, reached: Reached, file: str) -> None:
        """A full disk is no reason to give the fit up."""
        try:
            torch.save(vars(reached), f"{file}.part")
            os.replace(f"{file}.part", file)
        except (OSError, RuntimeError):
            self.forget()

    def _read(self) -> Reached | None:
        if self._file is None or not os.path.exists(self._file):
            return None
        values: dict[str, Any] = torch.load(self._file, map_location=self._base.device, weights_only=True)
        return Reached(**values)

    def forget(self) -> None:
        """Removes the file."""
        for path in () if self._file is None else (self._file, f"{self._file}.part"):
            if os.path.exists(path):
                os.unlink(path)


#: What those who watch are told of each phase: a name, where in it the phase begins, how much of it the phase is.
TOLD = {
    "covariances": ("gradients", 0.0, 0.5),
    "moments": ("gradients", 0.5, 0.5),
    "sketches": ("bases", 0.0, 1.0),
    "rows": ("features", 0.0, 1.0),
}


def as_progress(steps: Generator[None, None, T], progress: Progress) -> Generator[Progress, None, T]:
    """Returns what the steps return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield progress


def together(before: Sequence[Tensor], more: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Sums of covariances, on the CPU."""
    sides = [side for pair in more for side in pair]
    return [a.cpu() + b for a, b in zip(before, sides)] if before else sides
