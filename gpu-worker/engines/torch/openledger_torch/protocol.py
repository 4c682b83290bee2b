"""
Frames over stdio, version 2. A frame is

    u32 LE header length · u32 LE tail length · header (JSON, UTF-8) · tail (bytes)

The tail is the concatenation of `parts` (byte lengths, in the header). A tail of more than `FILE_BYTES` does not go
through the pipe but lies in a file of the scratch directory that both sides know: the header's `file` is its name, and
whoever reads it removes it. `protocol.ts` is the other side.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Sequence

VERSION = 2
MAX_HEADER = 4 << 20
MAX_TAIL = 64 << 20
FILE_BYTES = 4 << 20
MAX_FILE = 64 << 30


class ProtocolFault(Exception):
    """Bytes that are no frame: the stream cannot go on."""


@dataclass
class Frame:
    header: dict[str, Any]
    parts: list[bytes | memoryview] = field(default_factory=list)


def _read(stream: BinaryIO, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    done = 0
    while done < count:
        got = stream.readinto(view[done:])
        if not got:
            raise EOFError
        done += got
    return data


def read_frame(stream: BinaryIO, scratch: str) -> Frame:
    """The next frame. `EOFError` at the end of the stream, `ProtocolFault` when the bytes are none."""
    head_length, tail_length = struct.unpack("<II", _read(stream, 8))
    if head_length > MAX_HEADER or tail_length > MAX_TAIL:
        raise ProtocolFault(f"a frame of {head_length} + {tail_length} bytes")
    try:
        header = json.loads(_read(stream, head_length).decode("utf-8"))
    except ValueError as error:
        raise ProtocolFault("a header that is not JSON") from error
    if not isinstance(header, dict):
        raise ProtocolFault("a header that is no object")
    tail: bytearray = _read(stream, tail_length)
    name = header.pop("file", None)
    if name is not None:
        tail = _take(scratch, name)
    lengths = header.pop("parts", [])
    if not isinstance(lengths, list) or any(type(n) is not int or n < 0 for n in lengths) or sum(lengths) != len(tail):
        raise ProtocolFault("parts that do not fit the tail")
    view = memoryview(tail)
    parts: list[bytes | memoryview] = []
    at = 0
    for length in lengths:
        parts.append(view[at : at + length])
        at += length
    return Frame(header, parts)


def _take(scratch: str, name: object) -> bytearray:
    if not isinstance(name, str) or os.path.basename(name) != name or name.startswith("."):
        raise ProtocolFault("a file outside the scratch directory")
    path = os.path.join(scratch, name)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE:
                raise ProtocolFault(f"a file of {size} bytes")
            data = _read(file, size)
        os.unlink(path)
    except OSError as error:
        raise ProtocolFault(f"{name}: {error.strerror}") from error
    return data


def encode_frame(header: dict[str, Any], parts: Sequence[bytes | memoryview], scratch: str) -> list[bytes | memoryview]:
    """Buffers to write one after the other. Large tails are put into a file here."""
    head = dict(header)
    views = [memoryview(part).cast("B") for part in parts]
    if views:
        head["parts"] = [view.nbytes for view in views]
    if sum(view.nbytes for view in views) > FILE_BYTES:
        head["file"] = f"tail-{secrets.token_hex(12)}"
        path = os.path.join(scratch, head["file"])
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                for view in views:
                    file.write(view)
        except OSError:
            if os.path.exists(path):
                os.unlink(path)
            raise
        views = []
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode("utf-8")
    return [struct.pack("<II", len(text), sum(view.nbytes for view in views)), text, *views]
