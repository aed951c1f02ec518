"""Stores of another codec made of complete ones; stores of q2 read by zarr and numpy, and damaged."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipelines.__main__ import main
from stores import open_store, verify_store
from stores.checks.content import content_digest_of
from stores.errors import IntegrityError, PlanError
from stores.shards.receipt_pack import PACK_PATH
from stores.shards.zstd_frames import decode_frame, encode_frame
from stores.writing.convert import CONVERTED_FROM, convert_shards, converted_plan, open_converted
from tests.faults.outcomes import store_files
from tests.pipelines.made_stores import make_store

GOLDEN = Path(__file__).parents[2] / "golden"


def converted(parent: Path, folder: Path, codec_name: str = "q2") -> Path:
    with open_store(parent) as store:
        plan = converted_plan(store, codec_name, store.content_digest or content_digest_of(parent))
        writer = open_converted(store, plan, folder)
        convert_shards(store, writer)
    return writer.path


@pytest.mark.parametrize(
    "name", ["images-int8", "images-float16", "clips-int8", "pixels-float16", "layout-all"]
)
def test_everything_but_the_codec_is_the_parents(name: str, tmp_path: Path) -> None:
    path = converted(GOLDEN / name, tmp_path)
    assert verify_store(path, full=True).ok
    with open_store(GOLDEN / name) as old, open_store(path) as new:
        assert new.codec == "q2" and new.path.name.startswith(old.plan.name.rpartition("-")[0] + "-q2-")
        assert new.identity[CONVERTED_FROM] == {
            "codec": old.codec,
            "content_digest": content_digest_of(GOLDEN / name),
        }
        assert new.identity["codec"]["name"] == "q2" and new.identity["codec"]["fit"]["rows"] == 256
        assert (new.keys, new.skipped, new.bins) == (old.keys, old.skipped, old.bins)
        np.testing.assert_array_equal(new.source_sha256, old.source_sha256)
        for row in range(len(old)):
            expected, found = old.read_features([row]), new.read_features([row])
            for level, x in expected.items():
                step = np.asarray(new.plan.codec_state[level]["step"])  # type: ignore[index]
                deviation = new.plan.codec_state[level]["deviation"]  # type: ignore[index]
                error = np.moveaxis(found[level] - x, -3, -1) / deviation
                bound = float(step[0]) / 2 * len(deviation) ** 0.5
                assert np.linalg.norm(error, axis=-1).max() <= 1.001 * bound
            for target, array in old.read_targets([row])[0].items():
                np.testing.assert_array_equal(new.read_targets([row])[0][target], array)
            if old.plan.pixels:
                np.testing.assert_array_equal(new.read_pixels([row]), old.read_pixels([row]))


def test_the_error_of_both_codecs_is_on_record(tmp_path: Path) -> None:
    parent = make_store(tmp_path / "old", codec_name="int8", levels=("p4", "p5"), errors=True)
    (line, *_) = (converted(parent, tmp_path / "new", "q5") / PACK_PATH).read_text().splitlines()
    for level in ("p4", "p5"):
        (found,) = re.findall(rf'"{level}":(\{{"bits_per_value".*?\}}[^}}]*\}})', line)
        assert '"parent":{"bits_per_value":' in found and '"median":' in found


def test_an_interrupted_conversion_is_continued_to_the_same_bytes(tmp_path: Path) -> None:
    parent = make_store(tmp_path / "old", codec_name="float16", levels=("p4", "p5"))
    whole = converted(parent, tmp_path / "whole")
    with open_store(parent) as store:
        plan = converted_plan(store, "q2", content_digest_of(parent))

        def stop(rows: int) -> None:
            raise KeyboardInterrupt

        writer = open_converted(store, plan, tmp_path / "stopped")
        with pytest.raises(KeyboardInterrupt):
            convert_shards(store, writer, stop)
        assert len(writer.pending()) == len(plan.shards()) - 1
    path = converted(parent, tmp_path / "stopped")
    assert verify_store(path, full=True).ok
    assert content_digest_of(path) == content_digest_of(whole)
    ours, theirs = store_files(path), store_files(whole)
    differing = {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}
    assert differing <= {PACK_PATH, "MANIFEST.json"}, "receipts name their writers"


def test_convert_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent = make_store(tmp_path, codec_name="int8", levels=("p4", "p5"))
    assert main(["convert", "--store", str(parent), "--codec", "q10"]) == 0
    out = capsys.readouterr().out
    assert "codec     q10 p4: " in out and " bits a value; error " in out and "24 rows written" in out
    assert main(["convert", "--store", str(parent), "--codec", "q10"]) == 0
    assert "is complete: nothing to do" in capsys.readouterr().out
    assert main(["convert", "--store", str(parent), "--codec", "int8"]) == 2
    assert "has that codec already" in capsys.readouterr().err
    assert main(["convert", "--store", str(parent), "--codec", "q99"]) == 2
    assert "expected an error of 1 to 50 percent" in capsys.readouterr().err


def test_the_same_codec_is_refused() -> None:
    with open_store(GOLDEN / "images-int8") as store, pytest.raises(PlanError, match="codec int8 already"):
        converted_plan(store, "int8", "0" * 64)


@pytest.mark.parametrize("name", ["images-q2", "clips-int8"])
def test_the_readme_decodes_a_row_with_zarr_and_numpy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = GOLDEN / name if name.endswith("q2") else converted(GOLDEN / name, tmp_path)
    (code,) = re.findall(r"decoded by numpy:\n\n```python\n(.*?)```", (path / "README.md").read_text(), re.S)
    (folder,) = re.findall(r'open_group\("([^"]+)"', code)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / folder).symlink_to(path.absolute())
    monkeypatch.chdir(tmp_path / "beside")
    made: dict[str, object] = {}
    exec(f"import zarr\n{code}", made)
    with open_store(path) as store:
        level = store.levels[0]
        np.testing.assert_array_equal(
            made["value"], np.moveaxis(store.read_features([0], [level])[level][0], -3, -1)
        )


class TestDamage:
    """Payloads of frames."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return make_store(tmp_path, codec_name="q2", levels=("p5",), records=4, views=1)

    def test_a_changed_byte_is_found(self, path: Path) -> None:
        shard = next((path / "bins/64x64/levels/p5/q").rglob("c*/*/*/*/*"))
        data = bytearray(shard.read_bytes())
        data[20] ^= 1
        shard.write_bytes(bytes(data))
        with open_store(path) as store, pytest.raises(IntegrityError, match="CRC32C"):
            store.read_features([0, 1, 2, 3])

    @pytest.mark.parametrize("stated", [1 << 30, 7])
    def test_a_frame_of_another_length_is_refused_before_it_is_decoded(
        self, path: Path, stated: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one that decodes to a gigabyte, with every checksum right."""
        bomb = encode_frame(np.zeros(stated, np.uint8), 1)

        def read(self: object, row: int, out: memoryview) -> None:
            decode_frame(bomb, np.frombuffer(out, np.uint8), "a chunk")

        monkeypatch.setattr("stores.reading.array_reader.CompressedArrayReader.read_row", read)
        with (
            open_store(path) as store,
            pytest.raises(IntegrityError, match=f"a length of {stated}, expected"),
        ):
            store.read_features([0])
