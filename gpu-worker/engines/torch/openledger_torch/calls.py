"""A call of the parent process, from its frame to its last word."""

from __future__ import annotations

import queue
import sys
import threading
from typing import Any, Protocol

from .errors import Cancelled, EngineFault, fault_of
from .protocol import Frame


class Line(Protocol):
    """Where a call's frames go, and who counts it as under way."""

    def send(self, header: dict[str, Any], parts: list[bytes | memoryview] | None = None) -> None: ...

    def forget(self, call: Call) -> None: ...


class Call:
    """A call under way. `cancelled` is set by the reading thread."""

    def __init__(self, line: Line, id: int, method: str, frame: Frame) -> None:
        self._line = line
        self.id = id
        self.method = method
        self.params: dict[str, Any] = frame.header.get("params") or {}
        self.parts = frame.parts
        self.cancelled = threading.Event()
        self._stored: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.over = False

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled

    def event(self, name: str, parts: list[bytes | memoryview] | None = None, **values: Any) -> None:
        self._line.send({"type": "event", "id": self.id, "event": name, **values}, parts or [])

    def done(self, value: Any = None, parts: list[bytes | memoryview] | None = None) -> None:
        if not self.over:
            self.over = True
            self._line.forget(self)
            self._line.send({"type": "done", "id": self.id, "value": value}, parts or [])

    def fail(self, error: BaseException) -> None:
        if self.over:
            return
        self.over = True
        self._line.forget(self)
        if isinstance(error, Cancelled):
            self._line.send({"type": "cancelled", "id": self.id})
            return
        fault = fault_of(error)
        if not isinstance(error, EngineFault):
            print(f"{self.method}: {type(error).__name__}: {error}", file=sys.stderr)
        self._line.send({"type": "failed", "id": self.id, "code": fault.code, "message": fault.message[:2000]})

    def stored(self) -> bool:
        """Whether the checkpoint that was sent last is stored by now."""
        try:
            self._stored.get_nowait()
            return True
        except queue.Empty:
            return False

    def note_stored(self) -> None:
        self._stored.put(True)
