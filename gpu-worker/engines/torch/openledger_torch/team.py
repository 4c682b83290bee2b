"""
Training spread over several processes, a GPU each: every one reads its part of each step's examples, accelerate adds their
slopes up, and all make the same step. One alone is a team too.
"""

from __future__ import annotations

import os
import socket
from typing import Protocol

import torch
from torch import Tensor

from .errors import EngineFault


class Team(Protocol):
    #: This process's number, from 0; and how many there are.
    rank: int
    size: int

    def add_up(self, values: Tensor) -> None:
        """Every process's `values` become the sum of all of them, in place."""

    def add_numbers(self, numbers: list[float]) -> list[float]:
        """The same for numbers, in float64."""


class Alone:
    rank = 0
    size = 1

    def add_up(self, values: Tensor) -> None:
        pass

    def add_numbers(self, numbers: list[float]) -> list[float]:
        return numbers


def accelerate_version() -> str | None:
    from importlib import metadata

    try:
        return metadata.version("accelerate")
    except metadata.PackageNotFoundError:
        return None


class Accelerated:
    """
    Processes of this machine that met at the file `meeting`: over gloo on the CPU (by the loopback, where there is one), over
    NCCL on GPUs, process r on GPU r.
    """

    def __init__(self, rank: int, size: int, meeting: str, cpu: bool) -> None:
        if accelerate_version() is None:
            raise EngineFault("BAD_SETTINGS", "training in several processes needs accelerate, which Python does not have")
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1"
        )
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
        loopbacks = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
        if loopbacks:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopbacks[0])
        if not cpu:
            torch.cuda.set_device(rank)
        # A file to meet at: a port that was free a moment ago may be taken by now.
        torch.distributed.init_process_group(
            "gloo" if cpu else "nccl", init_method=f"file://{meeting}", rank=rank, world_size=size
        )
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=cpu)
        self.rank = self._accelerator.process_index
        self.size = self._accelerator.num_processes

    @property
    def device(self) -> torch.device:
        return self._accelerator.device

    def add_up(self, values: Tensor) -> None:
        values.copy_(self._accelerator.reduce(values, reduction="sum"))

    def add_numbers(self, numbers: list[float]) -> list[float]:
        values = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self.add_up(values)
        return values.tolist()

    def part(self) -> None:
        torch.distributed.destroy_process_group()
