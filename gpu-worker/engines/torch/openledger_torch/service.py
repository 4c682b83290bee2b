"""
The child's side of the protocol: calls come in, are run side by side in slices of one thread, and are answered. Three
threads stand beside it: one reads frames (a cancellation is noticed while a step runs), one writes them (bounded: an
unread pipe holds the engine up, not its memory), one sends the heart-beat, which tells how long the last slice has taken.
"""

from __future__ import annotations

import collections
import os
import platform
import queue
import sys
import threading
import time
from typing import Any, BinaryIO, Callable, Iterator

import torch

from . import __version__
from .calls import Call
from .errors import EngineFault, fault_of
from .methods import Methods
from .protocol import VERSION, Frame, ProtocolFault, encode_frame, read_frame

BEAT_SECONDS = 1.0
#: Calls that may wait to be begun; those beyond are refused.
MAX_CALLS = 4096
#: Frames that may wait to be written.
MAX_FRAMES = 1024
#: Serving beside long work: more than one step a turn.
SERVING_SECONDS = 0.02
STOP_SECONDS = 10.0


class Service:
    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, scratch: str) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._scratch = scratch
        self._calls: dict[int, Call] = {}
        self._lock = threading.Lock()
        self._new: collections.deque[Call] = collections.deque()
        self._wake = threading.Event()
        self._frames: queue.Queue[tuple[dict[str, Any], list[bytes | memoryview]] | None] = queue.Queue(MAX_FRAMES)
        self._stopping = threading.Event()
        self._writer_gone = False
        self._tokens: list[int] = []
        self._slice_began = time.monotonic()
        self._idle = True
        self._methods = Methods(scratch, self.token)
        self._jobs: collections.deque[tuple[Call, Iterator[None]]] = collections.deque()

    # ---- sending ---------------------------------------------------------------------------------------------------

    def send(self, header: dict[str, Any], parts: list[bytes | memoryview] | None = None) -> None:
        """Waits while too many frames are unwritten."""
        self._flush_tokens()
        self._put((header, parts or []))

    def token(self, call: int, token: int) -> None:
        """Tokens of one step travel together."""
        self._tokens += (call, token)

    def _flush_tokens(self) -> None:
        if self._tokens and threading.current_thread() is threading.main_thread():
            tokens, self._tokens = self._tokens, []
            self._put(({"type": "tokens", "tokens": tokens}, []))

    def _put(self, frame: tuple[dict[str, Any], list[bytes | memoryview]]) -> None:
        while not self._writer_gone:
            try:
                self._frames.put(frame, timeout=1.0)
                return
            except queue.Full:
                continue

    def _write(self) -> None:
        try:
            while (frame := self._frames.get()) is not None:
                for buffer in encode_frame(frame[0], frame[1], self._scratch):
                    self._outgoing.write(buffer)
                if self._frames.empty():
                    self._outgoing.flush()
            self._outgoing.flush()
        except BaseException as error:  # noqa: BLE001 - memory may run out here too
            # The parent is gone, or the scratch directory is full: it sees the end of the pipe, and starts another.
            print(f"cannot write: {error}", file=sys.stderr)
            self._writer_gone = True
            self.stop()
            if not isinstance(error, BrokenPipeError):
                os._exit(74)

    # ---- receiving -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while True:
                self._receive(read_frame(self._incoming, self._scratch))
        except EOFError:
            pass
        except BaseException as error:  # noqa: BLE001 - who does not hear any more must not seem to live
            print(f"cannot read: {type(error).__name__}: {error}", file=sys.stderr)
        self.stop()

    def _receive(self, frame: Frame) -> None:
        header = frame.header
        kind, id = header.get("type"), header.get("id")
        if kind == "stop":
            self.stop()
            return
        if type(id) is not int:
            raise ProtocolFault("a message without an id")
        with self._lock:
            call = self._calls.get(id)
        if kind == "cancel":
            if call is not None:
                call.cancelled.set()
                self._wake.set()
        elif kind == "stored":
            if call is not None:
                call.note_stored()
                self._wake.set()
        elif kind == "call":
            if call is not None or not isinstance(header.get("method"), str):
                raise ProtocolFault(f"call {id}")
            call = Call(self, id, header["method"], frame)
            with self._lock:
                full = len(self._calls) >= MAX_CALLS
                if not full:
                    self._calls[id] = call
                    self._new.append(call)
            if full:
                call.fail(EngineFault("OVERLOADED", f"{MAX_CALLS} calls are under way"))
            self._wake.set()
        else:
            raise ProtocolFault(f"a message of type {kind}")

    def forget(self, call: Call) -> None:
        with self._lock:
            self._calls.pop(call.id, None)

    def stop(self) -> None:
        """Ends the service; by force when a slice does not end in time."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._wake.set()
            timer = threading.Timer(STOP_SECONDS, lambda: os._exit(75))
            timer.daemon = True
            timer.start()

    # ---- the heart-beat --------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            busy = 0.0 if self._idle else time.monotonic() - self._slice_began
            try:
                self._frames.put_nowait(({"type": "beat", "busy": round(busy, 3), **self._methods.figures()}, []))
            except queue.Full:
                pass

    # ---- the work --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the parent says stop or is gone."""
        self._frames.put(({"type": "hello", **hello()}, []))
        threads: list[tuple[str, Callable[[], None]]] = [
            ("writer", self._write),
            ("reader", self._read),
            ("beat", self._beat),
        ]
        started = [threading.Thread(target=body, name=name, daemon=True) for name, body in threads]
        for thread in started:
            thread.start()
        while not self._stopping.is_set():
            self._wake.clear()
            self._begin_calls()
            busy = self._turn()
            self._flush_tokens()
            if not busy:
                self._idle = True
                self._wake.wait(timeout=0.005 if self._methods.waits else 0.5)
        self._methods.close()
        for call in list(self._calls.values()):
            call.fail(EngineFault("ENGINE_CLOSED", "the model is closed"))
        self._flush_tokens()
        self._put(({"type": "stopped"}, []))
        self._frames.put(None)
        started[0].join(timeout=STOP_SECONDS)

    def _slice(self) -> None:
        self._slice_began = time.monotonic()
        self._idle = False

    def _begin_calls(self) -> None:
        while self._new:
            call = self._new.popleft()
            self._slice()
            try:
                call.check()
                job = self._methods.begin(call)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the call's
                call.fail(error)
                continue
            if job is not None:
                self._jobs.append((call, job))

    def _turn(self) -> bool:
        """A step of serving, or several beside other work, then a slice of one job."""
        until = time.monotonic() + (SERVING_SECONDS if self._jobs else 0)
        self._slice()
        busy = self._methods.serve()
        while busy and self._jobs and time.monotonic() < until:
            self._slice()
            busy = self._methods.serve()
            self._flush_tokens()
        if not self._jobs:
            return busy
        call, job = self._jobs.popleft()
        self._slice()
        try:
            call.check()
            next(job)
            self._jobs.append((call, job))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001
            job.close()
            call.fail(error)
            if fault_of(error).code == "OUT_OF_MEMORY" and torch.cuda.is_available():
                torch.cuda.empty_cache()
        return True


def hello() -> dict[str, Any]:
    import transformers

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "protocol": VERSION,
        "engine": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "gpus": cuda,
        "memory": [torch.cuda.mem_get_info(i)[0] for i in range(len(cuda))],
    }

