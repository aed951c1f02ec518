"""The interface of heads: features and targets in, weighted losses or predictions out."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from heads.errors import HeadError as HeadError  # also a name of this module
from stores.pyramid import Level, PyramidSpec

SizeYX = tuple[int, int]
ValidSizes = Sequence[SizeYX] | Tensor
"""Of each image; see Head."""
Features = Mapping[str, Tensor]
Targets = Sequence[Mapping[str, Tensor]]


class Head(nn.Module, ABC):
    """A head over the levels of a pyramid.

    Features are (N, channels, y, x), of clips (N, channels, t, y, x), floating point, best with channels last
    in memory; a map of stride s has ceil(padded / s) cells along y and x. All images of a batch are padded to
    one size, at the bottom and the right; `valid_hw` holds the part of each that is image, in pixels. Inside
    torch.export it is a tensor, int64 (N, 2), whose values are not known: see pipelines/export/outputs.py.
    """

    task: ClassVar[str]
    map_axes: ClassVar[tuple[str, ...]] = ("y", "x")
    """Axes of a map after images and channels."""
    decays_norms: ClassVar[bool] = False
    """Norms inside it have weight decay, its input norms never; see
    pipelines/training/optimisation/optimizer.py."""

    def __init__(self, pyramid: PyramidSpec, num_classes: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.source = pyramid
        self.rescaled: nn.Module | None = None
        self.num_classes = num_classes

    def read_through(self, rescaled: nn.Module, source: PyramidSpec) -> None:
        """Puts a trainable module before the head: it makes the maps of `pyramid` from those of `source`.

        Args:
            rescaled: maps of `source` -> maps of `pyramid`, both finest first; see heads/plain/rescale.py.
            source: the levels that are read from then on.
        """
        self.source, self.rescaled = source, rescaled

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels it reads, finest first."""
        return self.source.names

    @property
    @abstractmethod
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets that its losses read."""

    @property
    def necks(self) -> Mapping[str, nn.Module]:
        """Its necks by their name in the table (heads/necks/table.py)."""
        return {}

    @abstractmethod
    def losses(
        self,
        features: Features,
        targets: Targets,
        valid_hw: Sequence[SizeYX],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses by name, scalars; their sum is what to minimise.

        Every draw (dropout, sampling) comes from `generator`; None means torch's global one. A generator on
        the CPU serves features on any device and gives the same draws there.
        Raises HeadError for a missing level or for sizes that do not fit together.
        """

    @abstractmethod
    def predict(
        self, features: Features, valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]
    ) -> list[Any]:
        """One prediction an image, in pixels of `output_hw`, without gradients. Call `eval()` first.

        Raises HeadError for a missing level or for sizes that do not fit together.
        """

    def select_maps(self, features: Features, valid_hw: ValidSizes) -> list[Tensor]:
        """The maps of `pyramid`, finest first. Raises HeadError where those read do not fit the head or the
        sizes."""
        check_levels(type(self).__name__, self.levels, tuple(features))
        maps = [features[name] for name in self.levels]
        if not isinstance(valid_hw, Tensor):
            self._check_maps(maps, valid_hw)
        if self.rescaled is not None:
            made: list[Tensor] = self.rescaled(maps)
            return made
        return maps

    def _check_maps(self, maps: Sequence[Tensor], valid_hw: Sequence[SizeYX]) -> None:
        for level, x_NCYX in zip(self.source, maps, strict=True):
            is_map = x_NCYX.ndim == 2 + len(self.map_axes)
            if not is_map or x_NCYX.shape[:2] != (len(valid_hw), level.channels):
                raise HeadError(
                    f"level {level.name} has shape {tuple(x_NCYX.shape)}, "
                    f"expected ({len(valid_hw)}, {level.channels}, {', '.join(self.map_axes)})"
                )
        finest, (height, width) = next(iter(self.source)), maps[0].shape[-2:]
        for y_px, x_px in valid_hw:
            if not (1 <= finest.cells(y_px) <= height and 1 <= finest.cells(x_px) <= width):
                raise HeadError(
                    f"valid size {y_px}x{x_px} px does not fit level {finest.name} of {height}x{width} cells "
                    f"of {finest.stride_px} px"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadPreset:
    """A named head: an architecture under settings."""

    task: str
    levels: tuple[str, ...]
    """Levels it needs, finest first; empty where `choose` says."""
    settings: Any
    """A frozen dataclass: the defaults under this name."""
    build: Callable[[PyramidSpec, int, Any], Head]
    """Makes the head from (its levels, number of classes, settings)."""
    translate: Callable[[Any, Mapping[str, Any]], dict[str, Any]] | None = None
    """(preset's settings, given ones) -> the given ones under present names; for runs of earlier versions."""
    has_classes: bool = True
    """Whether it needs a class or more; False of heads whose targets are numbers, such as depth."""
    choose: Callable[[PyramidSpec, Any], tuple[str, ...]] | None = None
    """(available levels, settings) -> those it reads, for heads that take what a backbone has; of the levels
    it chose it chooses them again. Raises HeadError where none will do."""

    def levels_of(self, name: str, pyramid: PyramidSpec, settings: Any) -> tuple[str, ...]:
        """The levels it reads of those available. Raises HeadError where they are missing."""
        if self.choose is None:
            check_levels(name, self.levels, pyramid.names)
            return self.levels
        try:
            return self.choose(pyramid, settings)
        except HeadError as error:
            raise HeadError(f"head {name}: {error}") from None

    def settings_with(self, name: str, given: Mapping[str, Any]) -> Any:
        """The preset's settings with the given ones in place of their defaults.

        Raises HeadError, naming the head, for an unknown setting or a value out of range.
        """
        if self.translate is not None:
            given = self.translate(self.settings, given)
        known = [field.name for field in dataclasses.fields(self.settings)]
        if unknown := sorted(set(given) - set(known)):
            raise HeadError(
                f"head {name!r} has no setting {', '.join(unknown)}; available: {', '.join(known)}"
            )
        return dataclasses.replace(self.settings, **given)


def check_levels(head: str, needed: Sequence[str], there: Sequence[str]) -> None:
    """Raises HeadError for levels that a head needs and that are missing."""
    if missing := [name for name in needed if name not in there]:
        raise HeadError(
            f"head {head} needs level {', '.join(missing)}; available: {', '.join(there) or 'none'}"
        )


def valid_cells(level: Level, valid_hw: ValidSizes) -> list[SizeYX] | Tensor:
    """Cells of a level that show a part of each image, as (y, x) or, of a tensor, int64 (N, 2).

    >>> from stores.pyramid import Level
    >>> p4 = Level(name="p4", stride_px=16, channels=8, stage=3)
    >>> valid_cells(p4, [(500, 512)]), valid_cells(p4, torch.tensor([[500, 512]])).tolist()
    ([(32, 32)], [[32, 32]])
    """
    if isinstance(valid_hw, Tensor):
        return (valid_hw / level.stride_px).ceil().long()
    return [(level.cells(y_px), level.cells(x_px)) for y_px, x_px in valid_hw]


def check_output_sizes(valid_hw: Sequence[SizeYX], output_hw: Sequence[SizeYX]) -> None:
    """Raises HeadError unless there is one output size an image."""
    if len(output_hw) != len(valid_hw):
        raise HeadError(f"{len(output_hw)} output sizes for {len(valid_hw)} images, expected one an image")


def check_choice(setting: str, value: object, choices: Sequence[str]) -> None:
    """Raises HeadError, listing the choices, for any other value."""
    if value not in choices:
        raise HeadError(f"{setting} is {value!r}, expected one of {', '.join(choices)}")


def check_int(setting: str, value: object, low: int, high: int) -> None:
    """Raises HeadError unless the value is an int in low..high, both included."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise HeadError(f"{setting} is {value!r}, expected a whole number in {low}..{high}")


def check_bool(setting: str, value: object) -> None:
    """Raises HeadError unless the value is True or False."""
    if not isinstance(value, bool):
        raise HeadError(f"{setting} is {value!r}, expected true or false")


def check_probability(setting: str, value: object) -> None:
    """Raises HeadError unless the value is a number in 0..0.9."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 0.9:
        raise HeadError(f"{setting} is {value!r}, expected a number in 0..0.9")


def initial_seed(seed: int, task: str, name: str) -> int:
    """Seed of a head's initial weights, different for each head of a run."""
    return int.from_bytes(
        hashlib.sha256(f"{seed}/{task}/{name}/weights".encode()).digest()[:8], "little", signed=True
    )
