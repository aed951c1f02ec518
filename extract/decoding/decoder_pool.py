"""A pool of processes that decode images and videos, one per processor core.

A decoder that hangs, crashes or exhausts its memory ends its own process, not the extraction. Threads would
hold the interpreter lock for a fifth of their time, so that at most five could work at once; processes leave
the interpreter of the extraction free to drive the device. The cost: half a second and 60 MB a process, and
the hand-over of sources and views through shared memory, see extract.decoding.messages.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.decoding.decoder_process import MEMORY
from extract.decoding.messages import Bytes, receive, send, shared_memory
from extract.decoding.video_container import ClipFacts
from extract.decoding.video_frames import decoders_here
from extract.sources.byte_sources import DecoderLost, SourceError, TookTooLong
from extract.sources.record import DECODER_NAMES
from extract.views.clip_view import ClipView
from extract.views.view import View
from stores.format.row_table import UNDECODABLE

logger = logging.getLogger(__name__)

LIMIT_S = 120.0
"""Seconds for one request: decoding ten seconds of 4K video takes a tenth of that on one core."""
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU)
"""Signals that people and schedulers send; no source makes a decoder send them to itself."""
_NO_MEMORY = "the decoder had no memory left"
COMMAND = (sys.executable, "-P", "-m", "extract.decoding.decoder_process")


class DecoderDied(Exception):
    """The process ended in the middle of a request; `signal_number` says by which signal, 0 by none."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(signal_number)


class DecoderPool:
    """Starts a process when all others are busy. Thread-safe."""

    def __init__(
        self,
        *,
        limit_s: float = LIMIT_S,
        processes: int | None = None,
        decoders: Sequence[str] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """
        Args:
            limit_s: seconds after which a decoder's process is killed and another one is tried once.
            processes: working at once; None: one a core.
            decoders: those of DECODER_NAMES that may be used; None: those that are installed.
            command: starts a process.
        """
        self.limit_s = limit_s
        self.decoders = tuple(decoders or decoders_here())
        self._command = tuple(command)
        self._processes = processes or len(os.sched_getaffinity(0))
        self._room = threading.BoundedSemaphore(self._processes)
        self._alone = threading.Lock()
        self._thread_alone: int | None = None
        self._idle: list[Decoder] = []
        self._owner = os.getpid()
        self._warned = False
        weakref.finalize(self, _end_all, self._idle)

    def facts(self, path: str | Path, offset: int, size: int) -> ClipFacts:
        """What the container in `size` bytes of a file says.

        Raises:
            SourceError: see extract.decoding.video_container; also where the decoder hangs or dies.
            OSError: the file could not be read, or the decoder was ended from outside.
        """
        request = {"do": "facts", "path": os.path.abspath(path), "offset": offset, "size": size}
        try:
            header, _ = self._ask(request)
        except DecoderDied as death:
            if death.signal_number == signal.SIGKILL:  # says nothing about what a container holds
                raise OSError(errno.ENOMEM, _NO_MEMORY) from None
            raise self._reason(death) from None
        facts = header["facts"]
        return ClipFacts(**{**facts, "hw": tuple(facts["hw"])})

    def render_video(
        self, data: bytes, hw: tuple[int, int], frames: int, views: Sequence[ClipView]
    ) -> list[npt.NDArray[np.uint8]]:
        """Views of a video, each of whose frames is decoded once.

        Args:
            data: the video file.
            hw, frames: what its container said when it was listed.
            views: of the video.

        Returns:
            uint8 (T, padded H, W, 3) of each view.

        Raises:
            SourceError: a frame cannot be decoded by any decoder; DecoderLost where the decoder crashed, had
            no memory or did not finish within the time limit.
            OSError: the decoder was ended from outside.
        """
        request = {
            "do": "video",
            "hw": hw,
            "frames": frames,
            "views": [view.to_params().tolist() for view in views],
            "interpolation": views[0].interpolation,  # of the store
        }
        first = min(DECODER_NAMES.index(view.decoder) for view in views)
        decoders = [name for name in DECODER_NAMES[first:] if name in self.decoders]
        while decoders:
            try:
                header, blobs = self._ask({**request, "decoders": decoders}, [data])
            except DecoderDied as death:
                if not decoders[1:]:
                    raise self._reason(death) from None
                self._warn_once(f"{decoders.pop(0)}: {self._reason(death).reason}")
                continue
            if header["decoder"] != decoders[0]:
                self._warn_once(f"{decoders[0]} cannot decode a video")
            shapes = [(len(view.frames), *view.padded_hw, 3) for view in views]
            return [
                np.frombuffer(blob, dtype=np.uint8).reshape(shape)
                for blob, shape in zip(blobs, shapes, strict=True)
            ]
        raise ValueError("no video decoder is installed: pip install av decord")

    def render_image(
        self, data: bytes, hw: tuple[int, int], views: Sequence[View]
    ) -> list[npt.NDArray[np.uint8]]:
        """Views of an image, which is decoded once; see extract.decoding.decoder_process.

        Raises:
            SourceError: the image cannot be decoded; DecoderLost where the decoder crashed, had no memory or
            did not finish within the time limit.
            OSError: the decoder was ended from outside.
        """
        request = {
            "do": "image",
            "hw": hw,
            "kind": type(views[0]).__name__,
            "views": [view.to_params().tolist() for view in views],
            "replays": [(view.revision, view.interpolation) for view in views],
        }
        try:
            _, blobs = self._ask(request, [data])
        except DecoderDied as death:
            raise self._reason(death) from None
        return [
            np.frombuffer(blob, dtype=np.uint8).reshape(*view.padded_hw, 3)
            for blob, view in zip(blobs, views, strict=True)
        ]

    def _warn_once(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("%s; PyAV decodes such videos instead (logged once)", what)

    def _reason(self, death: DecoderDied) -> SourceError:
        if death.signal_number == signal.SIGALRM:
            return TookTooLong(UNDECODABLE, f"the decoder did not finish within {self.limit_s:.0f} s")
        if death.signal_number == signal.SIGKILL:
            return DecoderLost(UNDECODABLE, _NO_MEMORY)
        return DecoderLost(UNDECODABLE, f"the decoder crashed (signal {death.signal_number})")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other thread's request is under way, and the first one of this thread starts a process:
        what fails then fails by itself."""
        with self._alone:
            for _ in range(self._processes):
                self._room.acquire()
            self._thread_alone = threading.get_ident()
            try:
                _end_all(self._idle)
                yield
            finally:
                self._thread_alone = None
                for _ in range(self._processes):
                    self._room.release()

    def _ask(
        self, request: dict[str, Any], blobs: Sequence[bytes] = ()
    ) -> tuple[dict[str, Any], list[Bytes]]:
        try:
            return self._ask_once(request, blobs)
        except DecoderDied as death:
            if death.signal_number != signal.SIGALRM:
                raise
        # The limit also passes while all processes are stopped (Ctrl-Z, a suspended job), which says nothing
        # about the source: it takes too long when another process does not finish either.
        return self._ask_once(request, blobs)

    def _ask_once(
        self, request: dict[str, Any], blobs: Sequence[bytes]
    ) -> tuple[dict[str, Any], list[Bytes]]:
        is_alone = self._thread_alone == threading.get_ident()
        with nullcontext() if is_alone else self._room:
            decoder = self._taken()
            try:
                reply = _exchange(decoder, {**request, "limit_s": self.limit_s}, blobs)
                if "no_memory" in reply[0]:
                    raise DecoderDied(signal.SIGKILL)
            except BaseException:
                decoder.end()
                raise
            self._idle.append(decoder)
        header, parts = reply
        if "source_error" in header:
            raise SourceError(*header["source_error"])
        if "os_error" in header:
            raise OSError(*header["os_error"])
        return header, parts

    def _taken(self) -> Decoder:
        if os.getpid() != self._owner:  # a fork must not talk to its parent's decoders
            self._idle, self._owner = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return Decoder(self._command)


class Decoder:
    """A process that decodes, and the memory that it shares with this one."""

    def __init__(self, command: Sequence[str]) -> None:
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.memory = shared_memory()
        shared = {} if self.memory is None else {MEMORY: str(self.memory)}
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=() if self.memory is None else (self.memory,),
                env={**os.environ, **threads, **shared, "PYTHONPATH": os.pathsep.join(paths)},
            )
        except BaseException:
            self._free()
            raise

    def end(self) -> None:
        """Kills the process; frees the memory."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self._free()

    def _free(self) -> None:
        if self.memory is not None:
            memory, self.memory = self.memory, None
            os.close(memory)


def _exchange(
    decoder: Decoder, request: dict[str, Any], blobs: Sequence[bytes]
) -> tuple[dict[str, Any], list[Bytes]]:
    """Raises DecoderDied; OSError where the process was ended from outside, which says nothing about the
    source."""
    process, memory = decoder.process, decoder.memory
    assert process.stdin is not None and process.stdout is not None
    try:
        send(process.stdin, request, blobs, memory)
        reply = receive(process.stdout, memory)
    except BrokenPipeError:
        reply = None
    if reply is not None:
        return reply
    code = process.wait()
    if -code in _FROM_OUTSIDE:
        name = signal.Signals(-code).name
        raise OSError(errno.EINTR, f"the decoder was ended from outside ({name}): run the command again")
    if code > 0:
        raise RuntimeError(f"{' '.join(process.args)} ended with exit code {code}: run it to see why")  # type: ignore[arg-type]
    raise DecoderDied(-code)


def _end_all(idle: list[Decoder]) -> None:
    while idle:
        idle.pop().end()


@cache
def decoder_pool() -> DecoderPool:
    """The pool of this process, which all its data sets share."""
    return DecoderPool()


def forget_decoders() -> None:
    """In a forked child: its parent's decoders, and locks on them, are not its own."""
    decoder_pool.cache_clear()
