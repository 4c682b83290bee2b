"""
Adapters in three tiers. On disk lies every registered adapter, as it came. Host memory and device memory hold the most
recently used ones: flat factors in host memory (what training and gradients read too), serving slots in device memory.

The device tier is one matrix `[slots, size]`: a slot is an adapter's factors for all modules that any adapter so far had,
ranks filled up with zeros, B already scaled. Slot 0 is no adapter: zeros. A batch of different adapters is a gather of its
rows, see `plans.py`.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .adapters import Lora, factors_of, parse_config, read_adapter
from .base import TARGETS, BaseModel
from .errors import EngineFault
from .passes import multipliers
from .sites import Factors


@dataclass
class Counts:
    """What an adapter did since it was registered."""

    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    #: Where it lay when a request wanted it.
    device_hits: int = 0
    host_hits: int = 0
    disk_hits: int = 0
    waited_ms: float = 0.0
    first_token_ms: float = 0.0


@dataclass
class Entry:
    id: int
    lora: Lora
    size: int
    counts: Counts = field(default_factory=Counts)
    #: Uses that need its files or factors: it is removed when they are over.
    users: int = 0
    closed: bool = False

    @property
    def bytes(self) -> int:
        return self.size * 4


class AdapterTiers:
    def __init__(
        self, base: BaseModel, directory: str, slots: int, host_bytes: int, slot_bytes: int | None = None
    ) -> None:
        """`slots`: at most, as many as `slot_bytes` hold; one always."""
        self._base = base
        self._directory = directory
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._entries: dict[int, Entry] = {}
        #: Registered and not closed.
        self.open = 0
        self._host: OrderedDict[int, Tensor] = OrderedDict()
        self._host_bytes = host_bytes
        self._host_used = 0
        self._loading: dict[int, Future[Tensor]] = {}
        # Disk is read beside the model's steps, not between them.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="adapters")
        self._slots = slots
        self._slot_bytes = slot_bytes
        self._slot_of: OrderedDict[int, int] = OrderedDict()
        self._pins: dict[int, int] = {}
        self._free = list(range(slots, 0, -1))
        self._targets: tuple[str, ...] = ()
        self.layout: Factors | None = None
        self.pool: Tensor | None = None
        #: Raised when slots changed their layout: gathered rows must be gathered again.
        self.version = 0
        #: Of each slot, which of all fillings it holds.
        self.stamps = [0] * (slots + 1)
        self._fillings = 0

    # ---- registration ----------------------------------------------------------------------------------------------

    def register(self, id: int, config: bytes, weights: bytes) -> Entry:
        if id in self._entries:
            raise EngineFault("BAD_REQUEST", f"adapter {id} is open already")
        lora, flat = read_adapter(self._base, config, weights)
        for name, data in ((f"{id}.json", config), (f"{id}.safetensors", weights)):
            with open(os.path.join(self._directory, name), "wb") as file:
                file.write(data)
        entry = Entry(id, lora, flat.numel())
        self._entries[id] = entry
        self.open += 1
        self._keep(id, flat)
        return entry

    def recover(self, id: int) -> Entry:
        """One that a process before this one registered in the same directory; its weights were checked then."""
        try:
            with open(os.path.join(self._directory, f"{id}.json"), "rb") as file:
                lora = parse_config(file.read())
            os.stat(os.path.join(self._directory, f"{id}.safetensors"))
        except OSError as error:
            raise EngineFault("BAD_ADAPTER", f"adapter {id} is not on disk: {error.strerror}") from error
        entry = Entry(id, lora, factors_of(self._base, lora, "BAD_ADAPTER").size)
        self._entries[id] = entry
        self.open += 1
        return entry

    def entry(self, id: int) -> Entry:
        entry = self._entries.get(id)
        if entry is None or entry.closed:
            raise EngineFault("ADAPTER_CLOSED", "the adapter is closed")
        return entry

    def hold(self, id: int) -> Entry:
        """The adapter stays until `release`, even if it is closed meanwhile."""
        entry = self.entry(id)
        entry.users += 1
        return entry

    def release(self, entry: Entry) -> None:
        entry.users -= 1
        if entry.closed and entry.users == 0:
            self._remove(entry)

    def close(self, id: int) -> None:
        entry = self._entries.get(id)
        if entry is None or entry.closed:
            return
        entry.closed = True
        self.open -= 1
        if entry.users == 0:
            self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.id]
        loading = self._loading.pop(entry.id, None)
        if loading is not None:
            loading.cancel()
        flat = self._host.pop(entry.id, None)
        if flat is not None:
            self._host_used -= flat.nbytes
        slot = self._slot_of.pop(entry.id, None)
        if slot is not None:
            self._free.append(slot)
        for name in (f"{entry.id}.json", f"{entry.id}.safetensors"):
            try:
                os.unlink(os.path.join(self._directory, name))
            except FileNotFoundError:
                pass

    # ---- host ------------------------------------------------------------------------------------------------------

    def factors(self, entry: Entry) -> Tensor:
        """The flat factors, on the CPU; read from disk if need be."""
        flat = self._host.get(entry.id)
        if flat is not None:
            self._host.move_to_end(entry.id)
            return flat
        loading = self._loading.pop(entry.id, None)
        flat = self._read(entry.id) if loading is None else loading.result()
        self._keep(entry.id, flat)
        return flat

    def ready(self, entry: Entry) -> bool:
        """Whether a slot can be had without waiting for the disk; else reading begins."""
        if entry.id in self._slot_of or entry.id in self._host:
            return True
        loading = self._loading.get(entry.id)
        if loading is None:
            self._loading[entry.id] = self._reader.submit(self._read, entry.id)
            return False
        if not loading.done():
            return False
        self.factors(entry)
        return True

    def _read(self, id: int) -> Tensor:
        path = os.path.join(self._directory, str(id))
        with open(f"{path}.json", "rb") as config, open(f"{path}.safetensors", "rb") as weights:
            flat = read_adapter(self._base, config.read(), weights.read())[1]
        return flat.pin_memory() if self._base.device.type == "cuda" else flat

    def _keep(self, id: int, flat: Tensor) -> None:
        self._host[id] = flat
        self._host_used += flat.nbytes
        while self._host_used > self._host_bytes and len(self._host) > 1:
            _, dropped = self._host.popitem(last=False)
            self._host_used -= dropped.nbytes

    # ---- device ----------------------------------------------------------------------------------------------------

    def note(self, entry: Entry) -> None:
        """A request wants the adapter: where it lies now is counted."""
        entry.counts.requests += 1
        if entry.id in self._slot_of:
            entry.counts.device_hits += 1
        elif entry.id in self._host:
            entry.counts.host_hits += 1
        else:
            entry.counts.disk_hits += 1

    def pin(self, entry: Entry) -> int | None:
        """The adapter's slot, kept until `unpin`; None while all slots are in use by others."""
        slot = self._slot_of.get(entry.id)
        if slot is None:
            self._make_room(entry.lora)
            slot = self._take_slot()
            if slot is None:
                return None
            try:
                self._fill(slot, entry)
            except BaseException:
                self._free.append(slot)
                raise
            self._slot_of[entry.id] = slot
        self._slot_of.move_to_end(entry.id)
        self._pins[entry.id] = self._pins.get(entry.id, 0) + 1
        return slot

    def unpin(self, entry: Entry) -> None:
        left = self._pins[entry.id] - 1
        if left == 0:
            del self._pins[entry.id]
        else:
            self._pins[entry.id] = left

    def _take_slot(self) -> int | None:
        if self._free:
            return self._free.pop()
        for id, slot in self._slot_of.items():
            if id not in self._pins:
                del self._slot_of[id]
                return slot
        return None

    def _fill(self, slot: int, entry: Entry) -> None:
        source = self.factors(entry)
        self._fillings += 1
        self.stamps[slot] = self._fillings
        assert self.pool is not None and self.layout is not None
        row = self.pool[slot]
        own = factors_of(self._base, entry.lora)
        values = source.to(self._base.device, non_blocking=True)
        if self.layout.rank == own.rank and len(self.layout.names) == len(own.names):
            pieces = dict(zip(own.names, values.split(own.lengths())))
            whole = torch.cat([pieces[name] for name in self.layout.names])
            torch.mul(whole, multipliers(self._base, self.layout, entry.lora.scale), out=row)
            return
        row.zero_()
        for site in own.sites:
            for side, scale in (("A", 1.0), ("B", entry.lora.scale)):
                place = self.layout.view(row, *site.key, side)
                place[: own.rank].copy_(own.view(values, *site.key, side)).mul_(scale)

    def _make_room(self, lora: Lora) -> None:
        """Slots become as large as this adapter needs, what they hold stays; and fewer, if there is no memory for so many of them."""
        rank = lora.rank if self.layout is None else max(self.layout.rank, lora.rank)
        targets = tuple(target for target in TARGETS if target in self._targets or target in lora.targets)
        if self.layout is not None and self.layout.rank == rank and targets == self._targets:
            return
        layout = Factors(self._base.sites.of(targets), rank, grouped=True)
        slots = self._slots
        if self._slot_bytes is not None:
            affordable = max(1, self._slot_bytes // (layout.size * self._base.dtype.itemsize))
            # Those in use stay where they are.
            slots = min(slots, max(affordable, *(self._slot_of[id] for id in self._pins), 0))
        pool = torch.zeros(slots + 1, layout.size, device=self._base.device, dtype=self._base.dtype)
        if self.layout is not None and self.pool is not None:
            for key in self.layout.places:
                old = self.layout.view(self.pool[: slots + 1], *key)
                layout.view(pool, *key)[:, : self.layout.rank].copy_(old)
        self._targets, self.layout, self.pool, self._slots = targets, layout, pool, slots
        self._free = [slot for slot in self._free if slot <= slots]
        for id in [id for id, slot in self._slot_of.items() if slot > slots]:
            del self._slot_of[id]
        self.version += 1

    # ---- figures ---------------------------------------------------------------------------------------------------

    def tiers(self) -> dict[str, int]:
        return {"device": len(self._slot_of), "host": len(self._host), "disk": len(self._entries)}

    def report(self) -> list[list[float]]:
        """A row an adapter that had a request: its id, then {@link Counts} in order of their names here."""
        rows = []
        for entry in self._entries.values():
            c = entry.counts
            if c.requests > 0:
                tier = 2 if entry.id in self._slot_of else 1 if entry.id in self._host else 0
                rows.append(
                    [entry.id, tier, c.requests, c.prompt_tokens, c.tokens, c.device_hits, c.host_hits, c.disk_hits]
                    + [round(c.waited_ms, 3), round(c.first_token_ms, 3)]
                )
        return rows

    def shut(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)


def now_ms() -> float:
    return time.perf_counter() * 1000
