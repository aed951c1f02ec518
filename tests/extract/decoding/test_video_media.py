"""Decoding in processes of its own: views of a video, and decoders that fail, crash or hang."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.decoding.decoder_pool import DecoderPool, decoder_pool
from extract.decoding.decoder_process import answer
from extract.decoding.video_container import ClipFacts
from extract.decoding.video_frames import DECODERS
from extract.sources.byte_sources import SourceError, TookTooLong
from extract.views.clip_recipes import frame_numbers
from extract.views.clip_view import ClipView
from stores.format.row_table import UNDECODABLE, WRONG_SIZE
from tests.extract.datasets.made_k400 import decoded, made_frames, video_bytes

MISBEHAVING = """
import os, time
from extract.decoding import video_frames as clip_decoders
from extract.decoding import decoder_process

def hang(data, facts, wanted):
    time.sleep(3600)
    yield

def crash(data, facts, wanted):
    os.abort()
    yield

def fail(data, facts, wanted):
    raise ValueError("as if the codec were unknown")
    yield

clip_decoders.DECODERS.update(dict({decoders}))
decoder_process.main()
"""
"""The decoding process with decoders that do these."""


@pytest.fixture(scope="module")
def data() -> bytes:
    return video_bytes(made_frames(0, 70))


def clip(start: int = 0, *, flip: bool = False, decoder: str = "decord", frames: int = 70) -> ClipView:
    """A part of each frame, doubled in size."""
    return ClipView(
        resized_hw=(48, 64),
        crop_yx=(8, 20),
        crop_hw=(16, 32),
        valid_hw=(32, 64),
        padded_hw=(32, 64),
        flip=flip,
        frames=frame_numbers(start, frames),
        decoder=decoder,
    )


def expected_clip(data: bytes, view: ClipView) -> np.ndarray:
    """The same by plain means."""
    made, frames = [], decoded(data)
    for number in view.frames:
        part = Image.fromarray(frames[number][8:24, 20:52]).resize((64, 32), Image.Resampling.BILINEAR)
        made.append(np.asarray(part)[:, ::-1] if view.flip else np.asarray(part))
    return np.stack(made)


MakePool = Callable[..., DecoderPool]


@pytest.fixture
def misbehaving() -> MakePool:
    def make(decoders: str, limit_s: float = 60.0, processes: int = 1) -> DecoderPool:
        command = (sys.executable, "-P", "-c", MISBEHAVING.replace("{decoders}", decoders))
        return DecoderPool(limit_s=limit_s, processes=processes, command=command)

    return make


def test_views_are_crops_of_the_exact_frames(data: bytes) -> None:
    views = [clip(3), clip(6, flip=True), clip(40, decoder="pyav")]
    clips = decoder_pool().render_video(data, (48, 64), 70, views)
    for found, view in zip(clips, views, strict=True):
        assert found.shape == (16, 32, 64, 3)
        assert np.array_equal(found, expected_clip(data, view))
        (alone,) = decoder_pool().render_video(data, (48, 64), 70, [view])
        assert np.array_equal(alone, found)


def test_a_short_video_begins_again(data: bytes) -> None:
    short = video_bytes(made_frames(0, 10))
    (found,) = decoder_pool().render_video(short, (48, 64), 10, [clip(0, frames=10)])
    assert np.array_equal(found[:5], found[5:10])
    assert not np.array_equal(found[0], found[1])


def test_a_video_that_is_not_as_it_was_listed_is_refused(data: bytes) -> None:
    for hw, frames in (((48, 64), 71), ((64, 48), 70)):
        with pytest.raises(SourceError, match="holds 70 frames of 64x48 pixels, its container said") as error:
            decoder_pool().render_video(data, hw, frames, [clip()])
        assert error.value.code == WRONG_SIZE


def test_pyav_decodes_what_decord_cannot(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Iterator[tuple[int, np.ndarray]]:
        raise ValueError("as if the codec were unknown")
        yield

    request = {"do": "video", "hw": [48, 64], "frames": 70, "views": [clip(2).to_params()]}
    request["interpolation"] = "bilinear"
    monkeypatch.setitem(DECODERS, "decord", fail)  # type: ignore[misc]
    header, (found,) = answer({**request, "decoders": ["decord", "pyav"]}, [bytearray(data)])
    assert header == {"decoder": "pyav"} and np.array_equal(found, expected_clip(data, clip(2)))
    with pytest.raises(SourceError, match="ValueError: as if the codec were unknown"):
        answer({**request, "decoders": ["decord"]}, [bytearray(data)])


@pytest.mark.ci
def test_a_decoder_that_hangs_is_killed_and_other_videos_continue(
    data: bytes, misbehaving: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    # Seconds that PyAV must not need for its own, on a busy machine; decord is given them twice.
    pool = misbehaving("decord=hang", limit_s=3.0, processes=2)
    with ThreadPoolExecutor(1) as thread, caplog.at_level(logging.WARNING):
        hanging = thread.submit(pool.render_video, data, (48, 64), 70, [clip(2)])
        pool.render_video(data, (48, 64), 70, [clip(decoder="pyav")])
        assert not hanging.done()
        assert np.array_equal(hanging.result()[0], expected_clip(data, clip(2)))
    (message,) = caplog.messages
    assert message == (
        "decord: the decoder did not finish within 3 s; PyAV decodes such videos instead (logged once)"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoders", "limit_s", "reason"),
    [
        ("decord=hang, pyav=hang", 1.0, "the decoder did not finish within 1 s"),
        ("decord=fail, pyav=crash", 60.0, "the decoder crashed (signal 6)"),
        ("decord=crash, pyav=fail", 60.0, "ValueError: as if the codec were unknown"),
    ],
)
def test_a_video_that_no_decoder_does_is_refused_and_the_next_is_decoded(
    data: bytes, tmp_path: Path, misbehaving: MakePool, decoders: str, limit_s: float, reason: str
) -> None:
    pool = misbehaving(decoders, limit_s)
    with pytest.raises(SourceError) as error:
        pool.render_video(data, (48, 64), 70, [clip()])
    assert (error.value.code, error.value.reason) == (UNDECODABLE, reason)
    assert isinstance(error.value, TookTooLong) == ("pyav=hang" in decoders)
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    assert pool.facts(path, 0, len(data)).frames == 70, "a new process takes over"


def test_many_threads_share_few_processes(data: bytes) -> None:
    pool, views = DecoderPool(processes=2), [clip(start) for start in range(7)]
    with ThreadPoolExecutor(5) as threads:
        clips = list(threads.map(lambda view: pool.render_video(data, (48, 64), 70, [view])[0], views))
    for found, view in zip(clips, views, strict=True):
        assert np.array_equal(found, expected_clip(data, view))
    assert 1 <= len(pool._idle) <= 2


def test_a_part_of_a_file_is_a_video(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.tar"
    path.write_bytes(bytes(1000) + data + bytes(700))
    facts = decoder_pool().facts(path, 1000, len(data))
    assert facts == ClipFacts(hw=(48, 64), frames=70, fps=25.0, rotation=0, decoder="decord")
    with pytest.raises(SourceError, match="known container"):
        decoder_pool().facts(path, 0, 900)
    with pytest.raises(FileNotFoundError):
        decoder_pool().facts(tmp_path / "none.mp4", 0, 1)
