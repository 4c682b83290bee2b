"""The engine's side of a team: starts its processes, hears the first of them, and starts all again when one is gone."""

from __future__ import annotations

import os
import queue
import secrets
import subprocess
import sys
import threading
from typing import Any, Iterator, Sequence

import torch

from .base import BaseModel
from .errors import EngineFault
from .protocol import Frame, encode_frame, read_frame
from .training import LEAST_TOKENS, Checkpoint, Finished, StepResult, Told

#: Times that a team which gets nowhere is started.
ATTEMPTS = 3
END_SECONDS = 5.0
#: How long a slice listens: others have their turn in between.
WAIT_SECONDS = 0.002


class Crew:
    """One run of a team's processes."""

    def __init__(self, headers: Sequence[dict[str, Any]], parts: Sequence[bytes], scratch: str) -> None:
        self._scratch = scratch
        self._told: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._members: list[subprocess.Popen[bytes]] = []
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        path = os.pathsep.join(each for each in (package, os.environ.get("PYTHONPATH")) if each)
        try:
            for header in headers:
                member = subprocess.Popen(
                    [sys.executable, "-m", "openledger_torch.member", "--scratch", scratch],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
                )
                self._members.append(member)
                threading.Thread(target=self._hear, args=(member,), daemon=True).start()
                self._write(member, header, parts)
        except OSError as error:
            self.end()
            raise EngineFault("ENGINE_FAILED", f"a training process does not start: {error}") from error

    def _hear(self, member: "subprocess.Popen[bytes]") -> None:
        """Frames of all members into one queue; `None` where one is gone without having come to the end."""
        assert member.stdout is not None
        try:
            while True:
                self._told.put(read_frame(member.stdout, self._scratch))
        except EOFError:
            pass
        except Exception:  # noqa: BLE001 - whatever it was, it was no frame
            member.kill()
        if member.wait() != 0:
            self._told.put(None)

    def _write(self, member: "subprocess.Popen[bytes]", header: dict[str, Any], parts: Sequence[bytes]) -> None:
        assert member.stdin is not None
        for buffer in encode_frame(header, parts, self._scratch):
            member.stdin.write(buffer)
        member.stdin.flush()

    def told(self) -> Frame | None:
        """What was told next, if anything was. Raises ConnectionError when a member is gone before the end."""
        try:
            frame = self._told.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            return None
        if frame is None:
            raise ConnectionError("a training process ended")
        return frame

    def stored(self) -> None:
        try:
            self._write(self._members[0], {"type": "stored"}, [])
        except OSError as error:
            raise ConnectionError("a training process ended") from error

    def end(self) -> None:
        for member in self._members:
            member.kill()
        for member in self._members:
            try:
                member.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            for stream in (member.stdin, member.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except OSError:
                        pass


def crew_training(
    base: BaseModel,
    directory: str,
    size: int,
    scratch: str,
    settings: dict[str, Any],
    parts: Sequence[bytes],
    micro_tokens: int,
    base_name: str,
) -> Iterator[Told]:
    """
    What one process would tell of the same training; a checkpoint counts as stored when more is asked for. A process that
    dies takes the team back to the last checkpoint, with smaller passes where memory ran out. Faults: the training's own,
    ENGINE_FAILED when it gets nowhere.
    """
    examples, weights, resume = parts
    step, attempts = 0, 0
    while True:
        meeting = os.path.join(scratch, f"meeting-{secrets.token_hex(12)}")
        shared = dict(
            type="train", directory=directory, device=base.device.type, settings=settings, microTokens=micro_tokens,
            dtype="bf16" if base.dtype == torch.bfloat16 else "fp32", baseName=base_name, size=size, meeting=meeting,
            threads=max(1, torch.get_num_threads() // size),
        )
        crew = Crew([{**shared, "rank": rank} for rank in range(size)], [examples, weights, resume], scratch)
        try:
            while True:
                frame = crew.told()
                kind = None if frame is None else frame.header["type"]
                if kind == "failed":
                    fault = EngineFault(frame.header["code"], frame.header["message"])
                    # What one of them says whose neighbour died is no fault of the training.
                    if fault.code == "ENGINE_FAILED":
                        raise ConnectionError(fault.message)
                    raise fault
                if kind == "step":
                    made = StepResult(*frame.header["result"])
                    # Steps that were made again are not told again.
                    if made.step > step:
                        step, attempts = made.step, 0
                        yield made
                elif kind == "checkpoint":
                    resume = bytes(frame.parts[0])
                    yield Checkpoint(frame.header["step"], resume)
                    crew.stored()
                elif kind == "done":
                    yield Finished(**frame.header["value"], files=tuple(map(bytes, frame.parts)))
                    return
                else:
                    yield None
        except (ConnectionError, EngineFault) as error:
            memory = isinstance(error, EngineFault) and error.code == "OUT_OF_MEMORY" and micro_tokens > LEAST_TOKENS
            if isinstance(error, EngineFault) and not memory:
                raise
            attempts += 1
            if memory:
                micro_tokens //= 2
            elif attempts >= ATTEMPTS:
                raise EngineFault("ENGINE_FAILED", f"training in {size} processes: {error}") from error
        finally:
            crew.end()
            if os.path.exists(meeting):
                os.unlink(meeting)
