"""Log of a store on its page: commands, throughput, stages; other lines are left out."""

import json
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.pages.skipped_pictures import skipped_pictures
from pipelines.pages.store_log import read_store_log
from pipelines.pages.throughput_charts import throughput_charts
from stores import open_store
from tests.extract.datasets.made_ade20k import write_folder
from tests.pipelines.made_stores import make_store


def events(shards: int, waits: bool) -> list[dict[str, object]]:
    made: list[dict[str, object]] = [
        {"time": 1000.0, "event": "begin", "command": ["x/__main__.py", "extract", "--data", "my data"]}
    ]
    for n in range(1, shards + 1):
        waited = {"waited_s": {"decode": 1.0 * n, "write": 0.5 * n}} if waits else {}
        made.append(
            {"time": 1000.0 + 4 * n, "event": "shard", "rows_done": 32 * n, "seconds": 4.0 * n, **waited}
        )
    return made


def test_intervals_between_shards(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    lines = [json.dumps(event) for event in events(3, True)]
    (tmp_path / "log" / "a.jsonl").write_text("\n".join(["cut off}", *lines, "[1]", '{"time": "x"}']))
    log = read_store_log(tmp_path)
    assert log.commands == ["python -m pipelines extract --data 'my data'"]
    (intervals,) = log.intervals
    assert [interval.images_per_s for interval in intervals] == [8.0] * 3
    assert intervals[0].share == pytest.approx({"decode": 0.25, "backbone": 0.625, "write": 0.125})
    assert intervals[2].minutes == pytest.approx(0.2)
    throughput, stages = throughput_charts(log)
    assert "images a second" in throughput.svg and "backbone" in stages.svg
    (tmp_path / "log" / "a.jsonl").write_text("\n".join(json.dumps(event) for event in events(2, False)))
    assert len(throughput_charts(read_store_log(tmp_path))) == 1  # earlier versions logged no stages
    assert throughput_charts(read_store_log(tmp_path / "absent")) == []


def test_the_page_of_a_real_extraction(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", training=3, validation=1)
    words = f"extract --dataset ade20k --data {data} --model swinv2-nano --weights random:0 --device cpu"
    words += f" --stores {tmp_path / 'f'} --workers 1 --crop-size 64"
    assert main(words.split()) == 0
    (store,) = (tmp_path / "f").glob("ade20k-*")
    page = tmp_path / "store.html"
    assert main(["info", "--store", str(store), "--out", str(page), "--data", str(data)]) == 0
    text = page.read_text()
    for shown in ("Throughput", "Commands that made it", "codec error, median channel", "% of a deviation"):
        assert shown in text, shown
    (intervals,) = read_store_log(store).intervals
    assert all(interval.share for interval in intervals)
    with open_store(store) as opened:
        (picture,) = skipped_pictures(opened.identity["dataset"], [opened.keys[0], "absent"], str(data))
    assert picture.name == opened.keys[0] and picture.uri.startswith("data:image/jpeg;base64,")


def test_skipped_records_without_their_source_have_no_picture(tmp_path: Path) -> None:
    store = make_store(tmp_path, skipped=frozenset({("training-1", 0)}))
    with open_store(store) as opened:
        assert skipped_pictures(opened.identity["dataset"], ["training-1"], str(tmp_path / "absent")) == []
    assert main(["info", "--store", str(store), "--out", str(tmp_path / "s.html")]) == 0
    assert "not an image" in (tmp_path / "s.html").read_text()
