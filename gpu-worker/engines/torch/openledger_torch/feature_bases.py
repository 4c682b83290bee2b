"""
Bases that features are made in, as they are published: `eigenbases.safetensors` and `projection.safetensors`
(`attribution/basis-files.ts`). On disk lie all that are open; the device holds those used last, as many as its part of memory
takes. Those of an 8B model are 600 to 800 MB, so that host memory holds none but what the system caches of the files.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import safetensors
import torch
from torch import Tensor

from .eigenbases import Layout
from .errors import EngineFault, is_memory
from .features import Eigenbases, Features
from .sites import Factors


@dataclass
class OpenBases:
    """`users`: calls that need the files; they are removed when the last is over."""

    id: int
    sketch_seed: int
    users: int = 0
    closed: bool = False


@dataclass(frozen=True)
class BasisFiles:
    """What both files say, on the CPU."""

    names: list[str]
    bases: Eigenbases
    vectors: Tensor


class FeatureBases:
    def __init__(self, device: torch.device, directory: str, device_bytes: int) -> None:
        self._device = device
        self._directory = directory
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._device_bytes = device_bytes
        self._used = 0
        self._open: dict[int, OpenBases] = {}
        self._ready: OrderedDict[int, tuple[list[str], Features]] = OrderedDict()
        self._loading: dict[int, Future[BasisFiles]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="bases")

    def register(self, id: int, sketch_seed: int, eigenbases: bytes | memoryview, projection: bytes | memoryview) -> OpenBases:
        """They are stored and read beside the model's steps; whether they are any good, `take` tells."""
        if id in self._open:
            raise EngineFault("BAD_REQUEST", f"bases {id} are open already")
        about = json.dumps({"sketchSeed": str(sketch_seed)}).encode()
        self._open[id] = entry = OpenBases(id, sketch_seed)
        self._loading[id] = self._reader.submit(self._store, id, (about, eigenbases, projection))
        return entry

    def recover(self, id: int) -> None:
        """Those that a process before this one registered in the same directory, and checked."""
        about, *files = self._paths(id)
        try:
            with open(about, "rb") as file:
                seed = int(json.loads(file.read())["sketchSeed"])
            for path in files:
                os.stat(path)
        except OSError as error:
            raise EngineFault("BAD_REQUEST", f"bases {id} are not on disk: {error.strerror}") from error
        self._open[id] = OpenBases(id, seed)

    def hold(self, id: int) -> OpenBases:
        entry = self._open.get(id)
        if entry is None or entry.closed:
            raise EngineFault("BAD_REQUEST", "the bases are closed")
        entry.users += 1
        return entry

    def release(self, entry: OpenBases) -> None:
        entry.users -= 1
        if entry.closed and entry.users == 0:
            self._remove(entry)

    def close(self, id: int) -> None:
        entry = self._open.get(id)
        if entry is None:
            # A process before this one may have been told, and not have lived to do it.
            self._unlink(id)
            return
        entry.closed = True
        if entry.users == 0:
            self._remove(entry)

    def take(self, entry: OpenBases, factors: Factors | None = None) -> Features | None:
        """
        On the device; None while the disk is being read. Whoever has them may keep them, though others take their place.
        Faults: BAD_REQUEST for files that are no bases, or of other matrices than `factors`.
        """
        found = self._ready.get(entry.id)
        if found is None:
            loading = self._loading.get(entry.id)
            if loading is None:
                loading = self._loading[entry.id] = self._reader.submit(self._read, entry.id)
            if not loading.done():
                return None
            del self._loading[entry.id]
            found = self._build(entry, loading.result())
        self._ready.move_to_end(entry.id)
        names, features = found
        if factors is not None and (names != factors.names or features.layout.shapes != shapes_of(factors)):
            raise EngineFault("BAD_REQUEST", "the bases are of other matrices than the gradient")
        return features

    def shut(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _build(self, entry: OpenBases, files: BasisFiles) -> tuple[list[str], Features]:
        try:
            features = self._features(entry, files)
        except Exception as error:
            if not is_memory(error) or not self._ready:
                raise
            features = None
        if features is None:
            # Whatever is on the device makes room.
            for id in list(self._ready):
                self._drop(id)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            features = self._features(entry, files)
        self._ready[entry.id] = files.names, features
        self._used += features.nbytes
        while self._used > self._device_bytes and len(self._ready) > 1:
            self._drop(next(iter(self._ready)))
        return files.names, features

    def _features(self, entry: OpenBases, files: BasisFiles) -> Features:
        return Features(files.bases, entry.sketch_seed, files.vectors.shape[1], files.vectors, self._device)

    def _drop(self, id: int) -> None:
        found = self._ready.pop(id, None)
        if found is not None:
            self._used -= found[1].nbytes

    def _remove(self, entry: OpenBases) -> None:
        del self._open[entry.id]
        loading = self._loading.pop(entry.id, None)
        if loading is not None:
            loading.cancel()
        self._drop(entry.id)
        self._unlink(entry.id)

    def _unlink(self, id: int) -> None:
        for path in self._paths(id):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def _paths(self, id: int) -> list[str]:
        return [os.path.join(self._directory, f"{id}.{kind}") for kind in ("json", "eigenbases", "projection")]

    def _store(self, id: int, files: tuple[bytes | memoryview, ...]) -> BasisFiles:
        for path, data in zip(self._paths(id), files):
            with open(path, "wb") as file:
                file.write(data)
        return self._read(id)

    def _read(self, id: int) -> BasisFiles:
        _, eigenbases, projection = self._paths(id)
        return read_bases(eigenbases, projection)


def shapes_of(factors: Factors) -> tuple[tuple[int, int], ...]:
    """[rank, hidden] of each matrix, in the order of the layout."""
    return tuple((factors.rank, factors.places[factors.of_name[name]][1]) for name in factors.names)


def read_bases(eigenbases: str, projection: str) -> BasisFiles:
    """From files. Faults: BAD_REQUEST."""
    try:
        metadata, tensors = _tensors(eigenbases, "openledger-eigenbases/1")
        names = sorted(name.removeprefix("lambda.") for name in tensors if name.startswith("lambda."))
        if not names:
            raise ValueError("no matrices")
        shapes = tuple((int(rank), int(hidden)) for rank, hidden in (tensors[f"lambda.{name}"].shape for name in names))
        bases = Eigenbases(
            Layout(shapes, int(metadata["block"])),
            [tensors[f"rank.{name}"].flatten() for name in names],
            [tensors[f"hidden.{name}"] for name in names],
            torch.cat([tensors[f"lambda.{name}"].flatten() for name in names]),
            float(metadata["damping"]),
        )
        vectors = _tensors(projection, "openledger-projection/1")[1]["vectors"]
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise EngineFault("BAD_REQUEST", f"bases: {type(error).__name__}: {error}") from error
    return BasisFiles(names, bases, vectors)


def _tensors(path: str, form: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != form:
            raise EngineFault("BAD_REQUEST", f"not a file of {form}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise EngineFault("BAD_REQUEST", f"{form}: entries that are not float32")
    return metadata, tensors
