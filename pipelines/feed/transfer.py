"""Encoded rows on their way from the host to a device, where they are dequantised.

The copy to a GPU runs beside its work, on a stream of its own, out of page-locked memory; no host waits.
Letters in tensor names: N rows, C channels, T frames, H, W cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from extract.codecs.devices.contract import DeviceCodec
from extract.codecs.on_device import device_codec, has_device_half, level_codecs
from pipelines.feed.host_ring import Arrays, HostSlot
from stores.format.plan import StorePlan


def dequantise(codec: str | DeviceCodec, encoded: Mapping[str, Tensor]) -> Tensor:
    """Rows as a store of this codec keeps them, made float32 (N, C, [T,] H, W), channels last in memory.

    The codec is chosen by its name alone, never by which arrays are present; a fitted one is given as such.

    >>> encoded = {"q": torch.ones(1, 2, 2, 3, dtype=torch.int8), "scale": torch.full((1, 3), 0.5)}
    >>> dequantise("int8", encoded).shape, float(dequantise("int8", encoded).sum())
    (torch.Size([1, 3, 2, 2]), 6.0)
    """
    made = device_codec(codec) if isinstance(codec, str) else codec
    return made.decode(encoded).movedim(-1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What was sent of some rows."""

    encoded: dict[str, dict[str, Tensor]]
    """Level -> the codec's arrays on the device; empty where the host has decoded them."""
    decoded: dict[str, Tensor]
    """Level -> float32 (N, [T,] H, W, C) on the device, of a codec without a device half."""
    others: list[dict[str, Tensor]]
    """Arrays sent beside the rows."""
    copied: torch.cuda.Event | None
    """Follows the copy to a GPU."""


class Transfer:
    """Sends rows of stores of one plan's codec to a device.

    Args:
        plan: of a store.
        device: where features are wanted.
    """

    def __init__(self, plan: StorePlan, device: torch.device) -> None:
        self._plan, self.device = plan, device
        self._codecs, self._on_device = level_codecs(plan), has_device_half(plan.codec)
        self._copies = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )

    def slot(self, levels: Mapping[str, Arrays]) -> HostSlot:
        """Memory for rows to be read into: that of `levels`, page-locked for a GPU."""
        return HostSlot(levels, pinned=self._copies is not None)

    def send(self, slot: HostSlot, rows: int, others: Sequence[Arrays] = ()) -> Sent:
        """Starts the copy of a slot's first rows, and of other arrays beside them. In the reading thread."""
        parts = {
            level: {name: tensor[:rows] for name, tensor in parts.items()}
            for level, parts in slot.tensors.items()
        }
        # Copied: a codec may return a view of its arrays, whose memory is read into again.
        on_host = {} if self._on_device else {
            level: torch.from_numpy(
                self._plan.level_codec(level).decode({n: t.numpy() for n, t in arrays.items()}).copy()
            )
            for level, arrays in parts.items()
        }  # fmt: skip
        with self._side_stream():
            encoded = {
                level: {name: tensor.to(self.device, non_blocking=True) for name, tensor in arrays.items()}
                for level, arrays in parts.items()
                if level not in on_host
            }
            decoded = {level: x.to(self.device, non_blocking=True) for level, x in on_host.items()}
            sent = slot.upload(others, self.device)
            slot.copied = self._copies.record_event() if self._copies else None
        return Sent(encoded=encoded, decoded=decoded, others=sent, copied=slot.copied)

    def features(self, sent: Sent) -> dict[str, Tensor]:
        """Level -> float32 (N, C, [T,] H, W), channels last in memory, in fresh memory. In the step, whose
        stream, not the host, waits for the copy; all that was sent then is that stream's."""
        if sent.copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(sent.copied)
            for row in (*sent.encoded.values(), sent.decoded, *sent.others):
                for tensor in row.values():
                    tensor.record_stream(stream)
        features = {level: x.movedim(-1, 1) for level, x in sent.decoded.items()}
        return features | {
            level: dequantise(self._codecs[level], parts) for level, parts in sent.encoded.items()
        }

    def _side_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._copies) if self._copies else nullcontext()
