"""Views of classification: against torchvision's transforms, replayed exactly, and at odd sizes."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from extract.sources.record import Record
from extract.views.crop_recipes import VIEW_RECIPES
from extract.views.crop_view import CROP_PARAMS, CropView


def record(height: int, width: int, key: str = "a") -> Record:
    return Record(key, 1, (height, width))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("hw", [(375, 500), (333, 250), (224, 224), (40, 31)])
@pytest.mark.parametrize("sizes", [(None, None), (64, None), (64, 64), (96, 101)])
def test_test_views_are_torchvisions(hw: tuple[int, int], sizes: tuple[int | None, int | None]) -> None:
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    recipe = VIEW_RECIPES["single"](*sizes)
    view = recipe.view("", record(*hw), 0, 0)
    rgb = noise(*hw)
    resized = Resize(recipe.short_px, InterpolationMode.BICUBIC)(Image.fromarray(rgb))
    assert np.array_equal(view.apply_image(rgb), np.asarray(CenterCrop(recipe.crop_px)(resized)))
    mirrored = VIEW_RECIPES["centre"](*sizes).view("", record(*hw), 1, 0).apply_image(rgb)
    assert np.array_equal(mirrored, view.apply_image(rgb)[:, ::-1])


def test_boxes_are_torchvisions_crop_and_resize() -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import hflip, resized_crop

    rgb = noise(60, 90)
    for name in ("probe", "probe-tv"):
        for index in range(8):
            view = VIEW_RECIPES[name](64, None).view("d", record(60, 90), index, 3)
            box = (*view.source_yx, *view.source_hw)
            expected = resized_crop(Image.fromarray(rgb), *box, [64, 64], InterpolationMode.BICUBIC)
            shown = hflip(expected) if view.flip else expected
            assert np.array_equal(view.apply_image(rgb), np.asarray(shown))
            again = CropView.from_params(view.to_params())
            assert again == view and len(view.to_params()) == len(CROP_PARAMS)


def test_boxes_are_distributed_as_torchvisions() -> None:
    """Mean area and aspect over many draws; the two rules differ where boxes do not fit."""
    from torchvision.transforms import RandomResizedCrop

    random.seed(0)
    torch.manual_seed(0)
    count, source = 4000, (120, 200)
    image = torch.empty(3, *source)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])[2:] for _ in range(count)]
    )
    recipe = VIEW_RECIPES["probe-tv"](32, None)
    ours = np.array([recipe.view("d", record(*source, key=str(n)), 0, 0).source_hw for n in range(count)])
    for measure in (lambda hw: hw.prod(1) / 24000, lambda hw: hw[:, 1] / hw[:, 0]):
        spread = measure(theirs).std() / count**0.5
        assert abs(measure(ours).mean() - measure(theirs).mean()) < 5 * spread
    clamped = VIEW_RECIPES["probe"](32, None)
    boxes = [clamped.view("d", record(*source, key=str(n)), 0, 0).source_hw for n in range(count)]
    full_height = np.mean([height == 120 for height, _ in boxes])
    assert full_height > 0.2 > np.mean(ours[:, 0] == 120), "boxes too high are clamped, not drawn again"


def test_odd_sizes_and_refusals() -> None:
    for name, recipe in ((name, make(32, None)) for name, make in VIEW_RECIPES.items()):
        for hw in ((1, 1), (1, 5000), (4000, 2)):
            view = recipe.view("d", record(*hw), 0, 0)
            assert view.apply_image(noise(*hw)).shape == (32, 32, 3), name
            assert max(view.resized_hw) <= 32 * 37
    with pytest.raises(ValueError, match="crop_size 100: expected a multiple of 32"):
        VIEW_RECIPES["probe"](100, None)
    with pytest.raises(ValueError, match="a short side of 64 px is less than the crop's 96"):
        VIEW_RECIPES["single"](96, 64)
    with pytest.raises(ValueError, match="takes boxes of the source"):
        VIEW_RECIPES["probe"](None, 64)
    with pytest.raises(ValueError, match="has 1 or 2 views of a record, not 3"):
        VIEW_RECIPES["centre"](None, None).view("d", record(9, 9), 2, 0)
    view = VIEW_RECIPES["single"](32, None).view("d", record(40, 40), 0, 0)
    with pytest.raises(ValueError, match="of an image of 20x20"):
        view.apply_image(noise(20, 20))
    with pytest.raises(ValueError, match="view parameters"):
        CropView.from_params([0.0] * 3)
