"""ADE20K, scene parsing with 150 classes (the challenge of 2016), from its official folders or from tars.

Official layout: `ADEChallengeData2016/images/{training,validation}/*.jpg` and the label maps
`annotations/{training,validation}/*.png`: 0 is unlabelled, 1..150 are the classes. As in mmseg
(`reduce_zero_label`) 0 becomes 255 = ignore and 1..150 become 0..149. Images may have other endings that are
decoded, in any case; an image without a label map, or a label map without an image, is a record that is
skipped and reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.ade20k_pairs import FOLDER, listed_pairs
from extract.datasets.layouts.label_maps import LabelMaps, Pair
from extract.datasets.layouts.sample_files import SAMPLE_SIZES_HW, image_bytes, sample_image
from extract.sources.byte_sources import BAD_TARGET, SourceError, decode_indices
from extract.swin.window_rule import WindowRule
from extract.views.recipes import RecipeMaker
from extract.views.segmentation_recipes import mask2former_crops, ms_flip, random_crops, single, slide

DEFAULT_FOLDER = FOLDER
OFFICIAL_SPLITS = ("training", "validation")
TRAINING_SPLITS = ("training",)

_NAMES = (
    "wall; building; sky; floor; tree; ceiling; road; bed; windowpane; grass; cabinet; sidewalk; "
    "person; earth; door; table; mountain; plant; curtain; chair; car; water; painting; sofa; shelf; "
    "house; sea; mirror; rug; field; armchair; seat; fence; desk; rock; wardrobe; lamp; bathtub; "
    "railing; cushion; base; box; column; signboard; chest of drawers; counter; sand; sink; skyscraper; "
    "fireplace; refrigerator; grandstand; path; stairs; runway; case; pool table; pillow; screen door; "
    "stairway; river; bridge; bookcase; blind; coffee table; toilet; flower; book; hill; bench; "
    "countertop; stove; palm; kitchen island; computer; swivel chair; boat; bar; arcade machine; hovel; "
    "bus; towel; light; truck; tower; chandelier; awning; streetlight; booth; television; airplane; "
    "dirt track; apparel; pole; land; bannister; escalator; ottoman; bottle; buffet; poster; stage; "
    "van; ship; fountain; conveyer belt; canopy; washer; plaything; swimming pool; stool; barrel; "
    "basket; waterfall; tent; bag; minibike; cradle; oven; ball; food; step; tank; trade name; "
    "microwave; pot; animal; bicycle; lake; dishwasher; screen; blanket; sculpture; hood; sconce; vase; "
    "traffic light; tray; ashcan; fan; pier; crt screen; plate; monitor; bulletin board; shower; "
    "radiator; glass; clock; flag"
)
CLASS_NAMES = tuple(_NAMES.split("; "))
"""The first name of each class in objectInfo150.txt, in its order."""

VIEW_RECIPES: Mapping[str, RecipeMaker] = {
    "ade20k": partial(random_crops, "ade20k"),
    "ade20k-m2f": partial(mask2former_crops, "ade20k-m2f"),
    "single": single,
    "ms-flip": ms_flip,
    "slide": slide,
}
"""Makers of recipes from (crop size, short side at ratio 1), None for the papers' 512 px."""
TRAINING_VIEWS = ("ade20k", "ade20k-m2f")
TEST_VIEWS = ("single", "ms-flip", "slide")
DEFAULT_WINDOW_RULE: WindowRule = "partition"
"""As the Swin of mmsegmentation."""


class Ade20k(LabelMaps):
    """One split; a `Dataset`."""

    licence = "images for non-commercial research and education only; annotations BSD-3-Clause"

    def __init__(self, split: str, pairs: Sequence[Pair], subset: str | None) -> None:
        super().__init__("ade20k", split, split in TRAINING_SPLITS, CLASS_NAMES, pairs, subset, decode_labels)


def decode_labels(annotation: bytes, original_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The label map in an official annotation: uint8 (H, W), 0..149 and 255 = ignore.

    Raises SourceError where it is no 8-bit PNG, holds a value above 150, or has another size than its image.

    >>> import io; from PIL import Image
    >>> file = io.BytesIO(); Image.fromarray(np.array([[0, 1, 150]], np.uint8)).save(file, "PNG")
    >>> decode_labels(file.getvalue(), (1, 3)).tolist()
    [[255, 0, 149]]
    """
    try:
        labels = decode_indices(annotation)
    except SourceError as error:
        raise SourceError(BAD_TARGET, f"annotation: {error.reason}") from None
    if labels.shape != original_hw:
        (h, w), (image_h, image_w) = labels.shape, original_hw
        raise SourceError(BAD_TARGET, f"annotation of {w}x{h} pixels, its image has {image_w}x{image_h}")
    if labels.max() > len(CLASS_NAMES):
        raise SourceError(
            BAD_TARGET, f"annotation holds label {labels.max()}, expected 0 to {len(CLASS_NAMES)}"
        )
    return labels - np.uint8(1)  # 0 wraps round to 255


def open_dataset(data: str | Path, split: str, subset: str | None = None) -> Ade20k:
    """A split of ADE20K.

    Args:
        data: the official folder or its parent; or tars of `key.jpg` with `key.png` or `key.seg.png`: a
        folder of them (`<split>/*.tar` or `*<split>*.tar`), one tar, or a pattern (`ade-{000..019}.tar`).
        split: training or validation; a tar or pattern given by itself is taken to be that split.
        subset: see stores.subsets.

    Raises:
        DatasetLayoutError: `data` holds neither, or no image with its label map.
        HostileTarError: see extract.sources.tar_index.
    """
    return Ade20k(split, listed_pairs(data, split), subset)


def write_sample(folder: Path, records: int, generator: np.random.Generator) -> None:
    """Writes a tiny set in the official layout: so many records of each split, blocks of random classes."""
    for split, short in zip(OFFICIAL_SPLITS, ("train", "val"), strict=True):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(1, records + 1):
            key, hw = f"ADE_{short}_{number:08d}", SAMPLE_SIZES_HW[number % len(SAMPLE_SIZES_HW)]
            blocks = generator.integers(0, len(CLASS_NAMES) + 1, (4, 4), dtype=np.uint8)
            labels = np.kron(blocks, np.ones((hw[0] // 4, hw[1] // 4), np.uint8))
            (folder / "images" / split / f"{key}.jpg").write_bytes(
                image_bytes(sample_image(generator, hw), "JPEG")
            )
            (folder / "annotations" / split / f"{key}.png").write_bytes(image_bytes(labels, "PNG"))
