"""A codec without a device half: its numpy half, on the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stores.codecs.contract import Codec, FittedCodec, State
from stores.errors import CodecError


class ThroughNumpy:
    """A `DeviceCodec` of any numpy codec. Features and codes are copied to the host and back, which waits for
    the device."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def with_state(self, state: State) -> ThroughNumpy:
        """The codec of one level. Raises CodecError where it takes no state, or not this one."""
        if not isinstance(self._codec, FittedCodec):
            raise CodecError("the codec has no state to be given")
        return ThroughNumpy(self._codec.with_state(state))

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        return self.encode_and_check(x)[0]

    def encode_and_check(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """`encode` and `holds` at once."""
        rows = [self._encoded(row) for row in _on_host(x)]
        empty = self._codec.encode(np.zeros(x.shape[1:], np.float32))  # in the place of rows it cannot hold
        made = [empty if row is None else row for row in rows]
        arrays = {name: _tensor(np.stack([row[name] for row in made]), x.device) for name in empty}
        return arrays, torch.tensor([row is not None for row in rows], device=x.device)

    def decode(self, encoded: Mapping[str, Tensor]) -> Tensor:
        device = next(iter(encoded.values())).device
        return _tensor(
            self._codec.decode({name: part.cpu().numpy() for name, part in encoded.items()}), device
        )

    def holds(self, x: Tensor, are_finite: Tensor) -> Tensor:
        return self.encode_and_check(x)[1]

    def _encoded(self, row: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]] | None:
        """The arrays of one row; None where the codec cannot hold it."""
        try:
            return self._codec.encode(row)
        except CodecError:
            return None


def _on_host(x: Tensor) -> npt.NDArray[np.float32]:
    rows: npt.NDArray[np.float32] = x.detach().float().cpu().numpy()
    return rows


def _tensor(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """In fresh memory: a codec's own arrays may be views of the features or of a buffer."""
    return torch.from_numpy(np.array(array, order="C")).to(device)
