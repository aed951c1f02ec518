"""Whether a head learns masks: not where its data has boxes alone."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from heads import head_settings
from pipelines.config import TrainConfig

logger = logging.getLogger(__name__)


def without_masks(config: TrainConfig, dataset: Mapping[str, Any], *, warn: bool = True) -> TrainConfig:
    """The configuration with the mask branch off where the data has boxes alone and nothing was said of it.

    Args:
        dataset: of the store's identity.
        warn: say so in the log.

    Raises HeadError for an unknown head.
    """
    known = {field.name for field in dataclasses.fields(head_settings(config.head, dataset["task"]))}
    if not dataset.get("boxes_only") or "masks" not in known or "masks" in config.head_settings:
        return config
    if warn:
        logger.warning("%s: the data has boxes and no masks: the mask branch is off", config.head)
    return dataclasses.replace(config, head_settings={**config.head_settings, "masks": False})
