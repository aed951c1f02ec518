"""Settings of a head that its data decides: no mask branch without masks, the unit and range of depth."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from heads import head_settings
from pipelines.config import TrainConfig

logger = logging.getLogger(__name__)


def settings_of_data(config: TrainConfig, dataset: Mapping[str, Any], *, warn: bool = True) -> TrainConfig:
    """The configuration with what the data decides, as far as nothing was said of it.

    A setting takes its value from the `task_facts` of that name (`extract.datasets.contract.Dataset`), and
    `masks` is off where the data has boxes alone.

    Args:
        dataset: of the store's identity.
        warn: say in the log that the mask branch is off.

    Raises HeadError for an unknown head.
    """
    known = {field.name for field in dataclasses.fields(head_settings(config.head, dataset["task"]))}
    decided = {name: value for name, value in dataset.get("task_facts", {}).items() if name in known}
    if dataset.get("boxes_only") and "masks" in known and "masks" not in config.head_settings:
        if warn:
            logger.warning("%s: the data has boxes and no masks: the mask branch is off", config.head)
        decided["masks"] = False
    if decided.keys() <= config.head_settings.keys():
        return config
    return dataclasses.replace(config, head_settings={**decided, **config.head_settings})
