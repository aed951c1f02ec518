"""Page of a store: bytes, skipped records, features as colours; layers switch in a browser."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.__main__ import main
from pipelines.analyses.components import component_colours
from tests.extract.datasets.made_ade20k import write_folder
from tests.pipelines.pages.browser import opened


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores of four scenes and of two."""
    folder = tmp_path_factory.mktemp("stores")
    data = write_folder(folder / "data", training=4, validation=2)
    words = f"extract --dataset ade20k --data {data} --model swinv2-nano --weights random:0 --device cpu"
    words += f" --stores {folder / 'f'} --workers 1"
    assert main([*words.split(), "--crop-size", "64"]) == 0
    assert main([*words.split(), "--split", "val", "--short-side", "64"]) == 0
    return folder / "f"


@pytest.fixture(scope="module")
def page(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "store.html"
    (store,) = stores.glob("ade20k-training*")
    assert main(["info", "--store", str(store), "--out", str(path)]) == 0
    return path


def test_it_shows_identity_bytes_and_features_without_addresses(page: Path) -> None:
    text = page.read_text()
    assert "://" not in text
    for shown in (
        "ade20k-training-swinv2-nano",
        "How to open it",
        "Features as colours",
        "data:image/png;base64,",
        "<svg",
    ):
        assert shown in text, shown


def test_another_ending_and_several_stores_are_refused(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "--stores", str(stores), "--out", "x.pdf"]) == 2
    assert "expected a name that ends with .html" in capsys.readouterr().err
    assert main(["info", "--stores", str(stores), "--out", str(tmp_path / "x.html")]) == 2
    assert "a page shows one store, found " in capsys.readouterr().err


def test_materials_get_colours_of_their_own() -> None:
    """Three materials span two components; noise is a twentieth of what sets them apart."""
    rng = np.random.default_rng(0)
    materials = rng.normal(size=(3, 16))
    layouts = [np.array([[0, 0, 1], [1, 2, 2]]), np.array([[2, 1, 0], [0, 1, 2]])]
    maps = [
        (materials[layout] + 0.05 * rng.normal(size=(*layout.shape, 16)))
        .transpose(2, 0, 1)
        .astype(np.float32)
        for layout in layouts
    ]
    colours = component_colours(maps)
    means = np.array(
        [np.concatenate([c[of == number, :2] for c, of in zip(colours, layouts, strict=True)]).mean(0)
         for number in range(3)]
    )  # fmt: skip
    apart = min(np.linalg.norm(means[a] - means[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    spread = max(
        np.linalg.norm(c[of == number, :2].astype(float) - means[number], axis=1).max()
        for c, of in zip(colours, layouts, strict=True)
        for number in range(3)
    )
    assert apart > 2 * spread


def test_a_common_offset_changes_no_colour() -> None:
    maps = [np.random.default_rng(n).normal(size=(8, 4, 5)).astype(np.float32) for n in range(2)]
    shifted = [each + np.float32(100) for each in maps]
    for one, other in zip(component_colours(maps), component_colours(shifted), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_two_channels_leave_blue_black() -> None:
    (colours,) = component_colours([np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)])
    assert colours.shape == (3, 3, 3) and not colours[..., 2].any() and colours[..., 0].any()


@pytest.mark.ci
def test_a_browser_switches_layers(page: Path) -> None:
    with opened(page) as (view, complaints):
        shown = view.locator("img.cells:visible")
        first = shown.first.get_attribute("data-layer")
        view.get_by_label("p4", exact=True).check()
        assert {each.get_attribute("data-layer") for each in shown.all()} == {"p4"} != {first}
        assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert complaints == []
