"""Images decoded in other processes: the same views as in this one, and decoders that crash or hang."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.decoding.decoder_pool import DecoderPool, decoder_pool
from extract.decoding.decoder_process import render_image
from extract.sources.byte_sources import DecoderLost, SourceError, TookTooLong
from extract.views.colour import Colour
from extract.views.view import View
from stores.format.row_table import UNDECODABLE, WRONG_SIZE

HW = (48, 64)
MISBEHAVING = """
import os, pathlib, signal, time
from extract.decoding import decoder_process

def hang():
    time.sleep(3600)

def stop_once(pid):
    file = pathlib.Path(pid)
    if not file.exists():
        file.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)

render = decoder_process.render_image
def misbehave(data, *rest):
    if data.endswith(b"bad"):
        {action}
    return render(data, *rest)

decoder_process.render_image = misbehave
decoder_process.main()
"""


@pytest.fixture(scope="module")
def data() -> bytes:
    file = io.BytesIO()
    rgb = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(file, "JPEG", quality=95)
    return file.getvalue()


def views() -> list[View]:
    """Whole, and cropped, mirrored, coloured and padded; by factors that no short decimal number holds."""
    colour = Colour(31 / 3, 1.1 / 0.9, True, 2 / 3, -7)
    return [
        View(resized_hw=(32, 43), valid_hw=(32, 43), padded_hw=(32, 64)),
        View(
            resized_hw=(96, 128),
            crop_yx=(5, 9),
            valid_hw=(64, 64),
            padded_hw=(64, 64),
            flip=True,
            colour=colour,
        ),
    ]


def misbehaving(action: str, limit_s: float = 60.0) -> DecoderPool:
    command = (sys.executable, "-c", MISBEHAVING.format(action=action))
    return DecoderPool(limit_s=limit_s, processes=1, command=command)


def test_views_are_those_that_are_rendered_here(data: bytes) -> None:
    for found, expected in zip(
        decoder_pool().render_image(data, HW, views()), render_image(data, HW, views()), strict=True
    ):
        assert found.dtype == np.uint8 and np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("make", "hw", "code", "reason"),
    [
        (lambda data: b"no image", HW, UNDECODABLE, "not an image of a known kind"),
        (lambda data: b"", HW, UNDECODABLE, "an empty file"),
        (lambda data: data[:400], HW, UNDECODABLE, "Truncated"),
        (lambda data: data, (64, 48), WRONG_SIZE, "decodes to 64x48 pixels, its header promised 48x64"),
    ],
)
def test_a_broken_image_is_refused_with_its_reason(
    data: bytes, make: Callable[[bytes], bytes], hw: tuple[int, int], code: int, reason: str
) -> None:
    with pytest.raises(SourceError, match=reason) as error:
        decoder_pool().render_image(make(data), hw, views())
    assert error.value.code == code


@pytest.mark.parametrize(
    ("action", "limit_s", "kind", "reason"),
    [
        ("os.abort()", 60.0, DecoderLost, r"the decoder crashed \(signal 6\)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 60.0, DecoderLost, "the decoder had no memory left"),
        ("raise MemoryError", 60.0, DecoderLost, "the decoder had no memory left"),
        ("hang()", 1.0, TookTooLong, "the decoder did not finish within 1 s"),
    ],
)
def test_an_image_that_ends_its_decoder_is_refused_and_the_next_is_decoded(
    data: bytes, action: str, limit_s: float, kind: type[SourceError], reason: str
) -> None:
    pool = misbehaving(action, limit_s)
    with pytest.raises(kind, match=reason) as error:
        pool.render_image(b"bad", HW, views())
    assert error.value.code == UNDECODABLE
    assert np.array_equal(pool.render_image(data, HW, views())[1], render_image(data, HW, views())[1])


def test_what_runs_alone_has_a_fresh_process_and_none_beside_it(data: bytes) -> None:
    pool = DecoderPool(processes=2)
    pool.render_image(data, HW, views())
    (before,) = pool._idle
    with ThreadPoolExecutor(1) as thread:
        with pool.alone():
            assert before.process.poll() is not None
            waiting = thread.submit(pool.render_image, data, HW, views())
            mine = pool.render_image(data, HW, views())
            assert len(pool._idle) == 1 and not waiting.done()
        assert np.array_equal(waiting.result()[1], mine[1])


def test_a_suspended_job_does_not_time_out_an_image(data: bytes, tmp_path: Path) -> None:
    """As by Ctrl-Z and fg: the time limit passes, and ends the decoder when it resumes."""
    file, limit_s = tmp_path / "pid", 2.0  # seconds that an image must not need, on a busy machine
    pool = misbehaving(f"stop_once({str(file)!r})", limit_s)
    with ThreadPoolExecutor(1) as thread:
        rendering = thread.submit(pool.render_image, data + b"bad", HW, views())
        while not (file.exists() and file.read_text()):
            assert not rendering.done()
            time.sleep(0.01)
        pid = int(file.read_text())
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        time.sleep(limit_s)
        os.kill(pid, signal.SIGCONT)
        found = rendering.result()
    assert np.array_equal(found[1], render_image(data, HW, views())[1])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGXCPU"])
def test_a_decoder_ended_from_outside_does_not_skip_the_image(data: bytes, name: str) -> None:
    ended = f"import signal as s; s.signal(s.{name}, s.SIG_DFL); s.raise_signal(s.{name})"
    pool = DecoderPool(command=(sys.executable, "-I", "-S", "-c", ended))
    with pytest.raises(OSError, match=rf"the decoder was ended from outside \({name}\)"):
        pool.render_image(data, HW, views())
