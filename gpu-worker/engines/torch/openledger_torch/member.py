"""
`python -m openledger_torch.member --scratch DIR`: one process of a team. It reads a training from standard input, and the first
of the team tells how it goes on standard output, in the frames of `protocol.py`. It ends when whoever started it is gone.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import queue
import signal
import sys
import threading
from typing import Any

import torch

from .base import DTYPES
from .errors import EngineFault, fault_of
from .loading import load_base
from .protocol import Frame, encode_frame, read_frame
from .team import Accelerated
from .training import Checkpoint, StepResult, trainer_of


class Member:
    def __init__(self, outgoing, scratch: str) -> None:
        self._outgoing = outgoing
        self._scratch = scratch
        self._stored: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def tell(self, header: dict[str, Any], parts: list[bytes] | None = None) -> None:
        for buffer in encode_frame(header, parts or [], self._scratch):
            self._outgoing.write(buffer)
        self._outgoing.flush()

    def listen(self) -> None:
        """What comes behind the training: word that a checkpoint is stored. The end of the stream is that of this process."""
        try:
            while True:
                read_frame(sys.stdin.buffer, self._scratch)
                self._stored.put(True)
        except BaseException:  # noqa: BLE001 - nobody is there to be told
            os._exit(76)

    def train(self, frame: Frame) -> None:
        params = frame.header
        threading.Thread(target=self.listen, daemon=True).start()
        torch.set_num_threads(params["threads"])
        cpu = params["device"] == "cpu"
        team = Accelerated(params["rank"], params["size"], params["meeting"], cpu)
        base = load_base(params["directory"], team.device, DTYPES[params["dtype"]])
        trainer = trainer_of(base, params["settings"], frame.parts, params["microTokens"], team)
        for told in trainer.run(params["baseName"]):
            if team.rank != 0 or told is None:
                continue
            if isinstance(told, StepResult):
                self.tell({"type": "step", "result": dataclasses.astuple(told)})
            elif isinstance(told, Checkpoint):
                self.tell({"type": "checkpoint", "step": told.step}, [told.state])
                self._stored.get()
            else:
                value = {"steps": told.steps, "tokens": told.tokens, "loss": told.loss}
                self.tell({"type": "done", "value": value}, list(told.files))
        team.part()


def main() -> None:
    parser = argparse.ArgumentParser(prog="openledger_torch.member", description=__doc__)
    parser.add_argument("--scratch", required=True)
    options = parser.parse_args()
    outgoing = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    member = Member(outgoing, options.scratch)
    try:
        member.train(read_frame(sys.stdin.buffer, options.scratch))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told by its code
        fault = fault_of(error)
        if not isinstance(error, EngineFault):
            print(f"member: {type(error).__name__}: {error}", file=sys.stderr)
        member.tell({"type": "failed", "code": fault.code, "message": fault.message[:2000]})
        # Others wait for this one in the middle of a sum: no farewell, the parent ends them.
        os._exit(1)


if __name__ == "__main__":
    main()
