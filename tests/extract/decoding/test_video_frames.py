"""Frames of videos equal those that PyAV decodes from the first on, whichever decoder reads which."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Mapping
from typing import Any

import av
import numpy as np
import pytest

import extract.decoding.video_container
from extract.decoding.video_container import ClipFacts, clip_facts
from extract.decoding.video_frames import read_frames
from extract.sources.byte_sources import SourceError
from stores.format.row_table import OVER_LIMIT, UNDECODABLE
from tests.extract.datasets.made_k400 import decoded, made_frames, video_bytes

COUNT = 70
UNEVEN = np.cumsum(np.random.default_rng(0).integers(6, 60, COUNT)).tolist()
"""Times of a variable frame rate."""
OPEN = {"x264-params": "open-gop=1:bframes=3:keyint=12:scenecut=0"}
REFRESH = {"x264-params": "intra-refresh=1:bframes=0:keyint=12"}

KINDS: Mapping[str, tuple[dict[str, Any], str]] = {
    "mp4": ({}, "decord"),
    "mkv": ({"kind": "matroska"}, "decord"),
    "webm": ({"kind": "webm", "codec": "libvpx-vp9"}, "decord"),
    "all intra": ({"keys_every": 1, "b_frames": 0}, "decord"),
    "uneven": ({"times": UNEVEN}, "decord"),
    "uneven mkv": ({"times": UNEVEN, "kind": "matroska"}, "decord"),
    "late": ({"times": [500 + 24 * number for number in range(COUNT)]}, "decord"),
    "cut in": ({"times": [24 * number - 240 for number in range(COUNT)]}, "pyav"),  # ten frames before 0
    "open groups": ({"options": OPEN}, "pyav"),
    "refresh": ({"options": REFRESH}, "pyav"),
    "hevc": ({"codec": "libx265"}, "pyav"),
    "mpeg4": ({"codec": "mpeg4"}, "pyav"),
    "avi": ({"kind": "avi", "codec": "mpeg4", "b_frames": 0}, "pyav"),
    "ts": ({"kind": "mpegts"}, "pyav"),
    "turned": ({"rotation": 90}, "pyav"),
}
"""What is encoded, and who reads it."""


def facts_of(data: bytes) -> ClipFacts:
    return clip_facts(io.BytesIO(data))


def assert_frames(data: bytes, facts: ClipFacts, expected: list[np.ndarray], decoder: str) -> None:
    """Frames at random, behind each other and at both ends are the expected ones."""
    rng = random.Random(0)
    few = [sorted({*rng.sample(range(len(expected)), min(4, len(expected)))}) for _ in range(6)]
    for wanted in (*few, list(range(9, len(expected)))[:8], [0], [len(expected) - 1]):
        found = list(read_frames(decoder, data, facts, wanted))
        assert [number for number, _ in found] == wanted
        for number, frame in found:
            assert frame.dtype == np.uint8
            assert np.array_equal(frame, expected[number]), (decoder, number, wanted)


@pytest.mark.parametrize("name", KINDS)
def test_made_frames_are_those_of_decoding_from_the_first(name: str) -> None:
    settings, decoder = KINDS[name]
    data = video_bytes(made_frames(0, COUNT), **settings)
    facts = facts_of(data)
    expected = decoded(data, facts.rotation)
    assert (facts.frames, facts.decoder) == (len(expected), decoder)
    assert facts.hw == expected[0].shape[:2] == ((64, 48) if facts.rotation else (48, 64))
    for each in {decoder, "pyav"}:
        assert_frames(data, facts, expected, each)


X265 = {"preset": "superfast", "x265-params": "log-level=none:open-gop=0"}
VP9 = {"kind": "webm", "codec": "libvpx-vp9"}
FORMATS: Mapping[str, tuple[dict[str, Any], tuple[int, int], str]] = {
    "8 bits 4:2:0": ({}, (48, 64), "decord"),
    "8 bits 4:2:0, full range": ({"pixels": "yuvj420p"}, (48, 64), "decord"),
    "8 bits 4:2:2": ({"pixels": "yuv422p"}, (48, 64), "decord"),
    "8 bits 4:4:4": ({"pixels": "yuv444p"}, (48, 64), "decord"),
    "8 bits, sides of no multiple of 4": ({}, (50, 66), "decord"),
    "8 bits, hevc": ({"codec": "libx265", "options": X265}, (48, 64), "decord"),
    "10 bits 4:2:0": ({"pixels": "yuv420p10le"}, (48, 64), "pyav"),
    "10 bits 4:2:2": ({"pixels": "yuv422p10le"}, (48, 64), "pyav"),
    "10 bits, hevc": ({"codec": "libx265", "pixels": "yuv420p10le", "options": X265}, (48, 64), "pyav"),
    "12 bits, hevc": ({"codec": "libx265", "pixels": "yuv420p12le", "options": X265}, (48, 64), "pyav"),
    "odd width": (VP9, (48, 63), "pyav"),
    "odd height": (VP9, (47, 64), "pyav"),
    "odd sides 4:4:4": ({"pixels": "yuv444p"}, (47, 63), "pyav"),
}
"""How frames are stored, their size, and who reads them."""


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_of_every_format_are_those_of_the_reference(name: str) -> None:
    """decord makes other RGB of more than 8 bits and of odd sides: it is not asked for them."""
    settings, hw, decoder = FORMATS[name]
    data = video_bytes(made_frames(0, 30, hw), **settings)
    facts, expected = facts_of(data), decoded(data)
    assert (facts.decoder, facts.hw) == (decoder, hw)
    assert_frames(data, facts, expected, decoder)


@pytest.mark.parametrize("name", ["10 bits 4:2:0", "odd height"])
def test_decord_would_give_other_pixels(name: str) -> None:
    """Why it is not asked: when this fails, decord has learnt to convert."""
    settings, hw, _ = FORMATS[name]
    data = video_bytes(made_frames(0, 30, hw), **settings)
    ((_, found),) = read_frames("decord", data, facts_of(data), [20])
    assert np.abs(found.astype(int) - decoded(data)[20]).mean() > 1


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_uneven_times_stand_in_the_file(kind: str) -> None:
    """The clips of a variable frame rate really have one."""
    data = video_bytes(made_frames(0, COUNT), times=UNEVEN, kind=kind)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        times_s = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
    assert np.abs(np.diff(times_s) - np.diff(UNEVEN) / 600).max() < 2e-3  # Matroska rounds to 1 ms
    assert np.ptp(np.diff(times_s)) > 0.05


def test_decord_would_give_other_frames_of_open_groups() -> None:
    """Why decord is not used for them: when this fails, decord has learnt to seek."""
    data = video_bytes(made_frames(0, COUNT), options=OPEN)
    expected, wanted = decoded(data), [3, 20, 41, 60]
    found = dict(read_frames("decord", data, facts_of(data), wanted))
    assert any(not np.array_equal(found[number], expected[number]) for number in wanted)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_as_the_container_says(degrees: int) -> None:
    frames = made_frames(1, 4)
    data = video_bytes(frames, rotation=degrees)
    facts = facts_of(data)
    assert facts.rotation == degrees
    for number, frame in read_frames(facts.decoder, data, facts, [0, 3]):
        turned = np.rot90(frames[number], degrees // 90)
        assert np.abs(frame.astype(int) - turned).mean() < 6, "the encoder loses that much"


@pytest.mark.parametrize("name", ["video_0", "video_90", "video_180", "video_270"])
def test_real_videos_are_turned_as_decord_turns_them(samples: Any, name: str) -> None:
    data = (samples / "k400" / "edge_cases" / f"{name}.mov").read_bytes()
    facts = facts_of(data)
    assert facts.decoder == ("decord" if name == "video_0" else "pyav")
    assert_frames(data, facts, [frame for _, frame in read_frames("decord", data, facts, [0, 1, 2])], "pyav")


@pytest.mark.parametrize(
    "name",
    [
        "videos/abseiling/gluonabseil_000000_000010.mp4",
        "videos/bungee jumping/zkXOcxGnUhs_000025_000035.mp4",
        "videos/flipping pancake/decordpanck_000000_000010.mkv",
        "edge_cases/mmaction2_test.avi",
        "edge_cases/mmaction2_demo_spatiotemporal_det.mp4",
    ],
)
def test_real_frames_are_those_of_decoding_from_the_first(samples: Any, name: str) -> None:
    data = (samples / "k400" / name).read_bytes()
    facts, wanted = facts_of(data), [0, 40, 41, 52]
    expected = dict(enumerate(decoded(data, limit=53)))
    for each in {facts.decoder, "pyav"}:
        for number, frame in read_frames(each, data, facts, wanted):
            assert np.array_equal(frame, expected[number]), (each, number)


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"", UNDECODABLE, "an empty file"),
        (b"#EXTM3U\nhttp://example.org/a.ts\n", UNDECODABLE, "not a video of a known container"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", UNDECODABLE, "not a video of a known container"),
        (video_bytes(made_frames(0, 4))[:400], UNDECODABLE, "InvalidDataError"),
        (video_bytes(made_frames(0, 2, (8, 512))), OVER_LIMIT, "over 32 times"),
    ],
)
def test_what_is_no_usable_video_is_refused(data: bytes, code: int, reason: str) -> None:
    with pytest.raises(SourceError) as error:
        facts_of(data)
    assert error.value.code == code and reason in error.value.reason


def test_a_file_with_nothing_but_sound_is_no_video() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(SourceError, match="no video stream"):
        facts_of(file.getvalue())


def test_the_index_of_an_mp4_and_its_packets_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with PyAVs that do not show the index."""
    sources = [
        video_bytes(made_frames(0, 30), **KINDS[name][0]) for name in ("mp4", "open groups", "all intra")
    ]
    expected = [facts_of(data) for data in sources]
    monkeypatch.setattr(extract.decoding.video_container, "_indexed", lambda stream, file: (0, False))
    assert [facts_of(data) for data in sources] == expected


def test_a_cut_video_is_refused_as_a_whole() -> None:
    """Its index, at the front, promises more frames than the file holds."""
    data = video_bytes(made_frames(0, COUNT), index_first=True)
    cut = data[: -len(data) // 20]
    assert facts_of(cut).frames == COUNT
    for decoder in ("decord", "pyav"):
        with pytest.raises(SourceError) as error:
            list(read_frames(decoder, cut, facts_of(cut), [0]))
    assert re.fullmatch(rf"PyAV finds \d+ frames, its container has {COUNT}", error.value.reason)


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe", "dash"])
def test_fragments_are_counted(flags: str) -> None:
    """Their indices are spread over the file."""
    data = video_bytes(made_frames(0, COUNT), container_options={"movflags": flags})
    expected = decoded(data)
    facts = facts_of(data)
    assert facts.frames == len(expected) == COUNT
    assert_frames(data, facts, expected, facts.decoder)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_damage_stays_within_its_group_of_pictures(decoder: str) -> None:
    """Decoders paint over some damage; what they make of it must not depend on what else is asked for."""
    sound = video_bytes(made_frames(0, COUNT), index_first=True)
    damaged = bytearray(sound)
    damaged[len(sound) - 6000 : len(sound) - 5700] = bytes(300)
    data, expected = bytes(damaged), decoded(sound)
    facts, changed = facts_of(data), set()
    together = dict(read_frames(decoder, data, facts, range(COUNT)))
    for number in range(1, COUNT, 4):
        ((_, alone),) = read_frames(decoder, data, facts, [number])
        assert np.array_equal(alone, together[number])
        if not np.array_equal(alone, expected[number]):
            changed.add(number // 12)
    assert len(changed) == 1
