"""The decoder process: it may hang or crash, and is then replaced.

It reads requests from its standard input and answers on its standard output until the input ends. Each
request has a time limit in seconds, after which the kernel ends the process, whatever it is doing and even if
its parent is gone. Messages are those of extract.decoding.messages; MEMORY names the descriptor of the memory
that both sides share.

    python -m extract.decoding.decoder_process
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from extract.decoding.messages import receive, send
from extract.decoding.video_container import clip_facts
from extract.decoding.video_frames import read_frames
from extract.sources.byte_sources import SourceError, decode_picture
from extract.views.clip_view import ClipView, render_clips
from extract.views.crop_view import CropView
from extract.views.persons.affine_view import AffineView
from extract.views.view import Hw, View
from stores.format.row_table import WRONG_SIZE

_NICENESS = 10
"""Lower priority than the thread that drives the device: decoders use the processor time it leaves."""
MEMORY = "PERMAFROST_DECODER_MEMORY"
"""Environment variable: the number of the descriptor; not set where pipes carry all bytes."""
IMAGE_VIEWS: Mapping[str, type[View]] = {kind.__name__: kind for kind in (View, CropView, AffineView)}
"""Classes of views of images by the name that a request has."""


class Region(io.RawIOBase):
    """A part of a file as a file of its own: a video inside a tar."""

    def __init__(self, path: str, offset: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 it lives as long as this object
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        self._file.seek(self._offset + self._at)
        found: int = self._file.readinto(view[:count]) or 0
        self._at += found
        return found

    def close(self) -> None:
        self._file.close()
        super().close()


def answer(request: Mapping[str, Any], blobs: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """The reply to a request. Raises SourceError, OSError, MemoryError."""
    if request["do"] == "facts":
        with Region(request["path"], request["offset"], request["size"]) as region:
            return {"facts": asdict(clip_facts(io.BufferedReader(region, 1 << 16)))}, []
    if request["do"] == "image":
        kind = IMAGE_VIEWS[request["kind"]]
        images = [
            replace(kind.from_params(params), revision=revision, interpolation=interpolation)
            for params, (revision, interpolation) in zip(request["views"], request["replays"], strict=True)
        ]
        return {}, render_image(bytes(blobs[0]), tuple(request["hw"]), images)
    views = [
        replace(ClipView.from_params(params), interpolation=request["interpolation"])
        for params in request["views"]
    ]
    clips, decoder = _render_video(bytes(blobs[0]), request, views)
    return {"decoder": decoder}, clips


def render_image(data: bytes, original_hw: Hw, views: Sequence[View]) -> list[npt.NDArray[np.uint8]]:
    """uint8 RGB (padded H, W, 3) of each view, zero where it is padding.

    Args:
        data: the image file.
        original_hw: what its header promised when it was listed.

    Raises:
        SourceError: the bytes are no image, or one of another size.
    """
    picture = decode_picture(data)
    if (picture.height, picture.width) != original_hw:
        height, width = original_hw
        found = f"{picture.width}x{picture.height} pixels"
        raise SourceError(WRONG_SIZE, f"decodes to {found}, its header promised {width}x{height}")
    return [view.apply_picture(picture) for view in views]


def _render_video(
    data: bytes, request: Mapping[str, Any], views: Sequence[ClipView]
) -> tuple[list[npt.NDArray[np.uint8]], str]:
    """The views, and the first decoder that gave them. Raises the SourceError of the last one."""
    facts = clip_facts(io.BytesIO(data))
    promised = (tuple(request["hw"]), request["frames"])
    if (facts.hw, facts.frames) != promised:
        found = f"{facts.frames} frames of {facts.hw[1]}x{facts.hw[0]} pixels"
        listed = f"{promised[1]} of {promised[0][1]}x{promised[0][0]}"
        raise SourceError(WRONG_SIZE, f"holds {found}, its container said {listed} when it was listed")
    wanted = sorted({frame for view in views for frame in view.frames})
    decoders = list(request["decoders"])
    while True:
        decoder = decoders.pop(0)
        try:
            return render_clips(read_frames(decoder, data, facts, wanted), views), decoder
        except SourceError:
            if not decoders:
                raise


def serve(requests: IO[bytes], replies: IO[bytes], memory: int | None = None) -> None:
    """Answers requests until there are no more. Args: memory: that both sides share."""
    while (message := receive(requests, memory)) is not None:
        request, blobs = message
        signal.setitimer(signal.ITIMER_REAL, request["limit_s"])  # then SIGALRM ends the process
        try:
            header, parts = answer(request, blobs)
        except SourceError as error:
            header, parts = {"source_error": [error.code, error.reason]}, []
        except MemoryError:
            header, parts = {"no_memory": True}, []
        except OSError as error:
            header, parts = {"os_error": [error.errno, error.strerror or str(error)]}, []
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(replies, header, parts, memory)


def main() -> None:
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    os.nice(_NICENESS)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is this one's
    memory = os.environ.get(MEMORY)
    try:
        serve(sys.stdin.buffer, replies, None if memory is None else int(memory))
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
