"""
Keys and values of the sequences of a batch: a row each, as long as the longest needs, grown in steps. Rows are ragged: what
lies behind a row's own length is masked. Decoding reads rows 0 … n − 1 in place, without gathering.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Positions that the cache grows by.
GRAIN = 64


class RaggedCache:
    """What transformers calls a cache: attention layers hand in new keys and values, and get all that their queries may see."""

    def __init__(
        self, rows: int, windows: dict[str, int | None], device: torch.device, additive: torch.dtype | None = None
    ) -> None:
        self._rows = rows
        self._additive = additive
        self._windows = windows
        self._device = device
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self.capacity = 0
        #: Which of all allocations this is.
        self.version = 0
        self._at: Tensor | None = None
        self._index: Tensor | None = None
        self._count = 0
        self._seen = 0

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for held in (self._keys, self._values) for t in held.values())

    def begin(self, rows: list[int], starts: list[int], tokens: int) -> Tensor | dict[str, Tensor]:
        """
        The next forward pass reads `tokens` tokens of each of `rows`, the first at position `starts[i]`. Gives the masks,
        [rows, 1, tokens, seen] or one a kind of layer: True where a query may look (or to be added, see `BaseModel`).
        """
        seen = max(starts) + tokens
        self.reserve(seen)
        decoding = tokens == 1 and rows == list(range(len(rows)))
        index = None if decoding else torch.tensor(rows, device=self._device)
        return self.place(index, torch.tensor(starts, device=self._device), tokens, seen)

    def place(self, index: Tensor | None, first: Tensor, tokens: int, seen: int) -> Tensor | dict[str, Tensor]:
        """
        The same with what is on the device: rows `index` (None: the first ones), positions `first` [rows] of their first tokens, of
        which none looks at `seen` ≤ capacity or beyond.
        """
        self._seen = seen
        self._count = first.shape[0]
        self._index = index
        self._at = first[:, None] + torch.arange(tokens, device=self._device)
        columns = torch.arange(seen, device=self._device)
        masks = {}
        for kind, window in self._windows.items():
            mask = columns <= self._at[:, :, None]
            if window is not None:
                mask &= columns > self._at[:, :, None] - window
            mask = mask[:, None]
            if self._additive is not None:
                least = torch.finfo(self._additive).min
                mask = torch.zeros(mask.shape, device=mask.device, dtype=self._additive).masked_fill_(~mask, least)
            masks[kind] = mask
        return masks["all"] if "all" in masks else masks

    @property
    def positions(self) -> Tensor:
        """[rows, tokens]"""
        assert self._at is not None
        return self._at

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_args, **_kwargs) -> tuple[Tensor, Tensor]:
        """keys, values [rows, heads, tokens, size]; gives [rows, heads, seen, size]."""
        assert self._at is not None
        if layer_idx not in self._keys:
            for held, new in ((self._keys, keys), (self._values, values)):
                shape = (self._rows, new.shape[1], self.capacity, new.shape[3])
                held[layer_idx] = torch.zeros(shape, device=new.device, dtype=new.dtype)
        out = []
        for held, new in ((self._keys[layer_idx], keys), (self._values[layer_idx], values)):
            if self._index is None:
                rows = held[: self._count]
                at = self._at[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3])
                rows.scatter_(2, at, new)
                out.append(rows[:, :, : self._seen])
            else:
                # Advanced indices around a slice: [rows, tokens, heads, size].
                held[self._index[:, None], :, self._at] = new.transpose(1, 2)
                out.append(held[:, :, : self._seen].index_select(0, self._index))
        return out[0], out[1]

    def move(self, source: int, target: int, length: int) -> None:
        for held in (*self._keys.values(), *self._values.values()):
            held[target, :, :length] = held[source, :, :length]

    def wipe(self, row: int) -> None:
        """What is masked has weight 0, and 0 · NaN is NaN: a row that diverged must leave nothing."""
        for held in (*self._keys.values(), *self._values.values()):
            held[row] = 0

    def get_seq_length(self, _layer_idx: int = 0) -> int:
        return 0

    def bytes_at(self, positions: int) -> int:
        """What the cache takes when its longest row has `positions`; 0 before the first pass has shown the shapes."""
        return 0 if self.capacity == 0 else self.bytes // self.capacity * _rounded(positions)

    def reserve(self, positions: int) -> None:
        if positions <= self.capacity:
            return
        # By half at least: growing copies everything.
        capacity = _rounded(max(positions, self.capacity * 3 // 2))
        for held in (self._keys, self._values):
            for layer, old in held.items():
                new = torch.zeros(*old.shape[:2], capacity, old.shape[3], device=old.device, dtype=old.dtype)
                new[:, :, : self.capacity] = old
                held[layer] = new
        self.capacity = capacity
        self.version += 1

    def clear(self) -> None:
        """Gives the memory back."""
        self._keys.clear()
        self._values.clear()
        self.capacity = 0
        self.version += 1


def _rounded(positions: int) -> int:
    return -(-positions // GRAIN) * GRAIN
