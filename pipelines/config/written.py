"""Names of the files that hold a run's settings, and the settings as YAML."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipelines.config.fields import VerbConfig

RUN_CONFIG = "config.yaml"
"""File of a run's folder with its configuration, written by `config_yaml`; `--resume` starts from it."""
GROUP_RECORD = "heads.json"
"""File of a folder of several heads' runs: which they are, and which were stopped."""


def config_yaml(config: VerbConfig) -> str:
    """`config` as YAML that `--config` takes back."""
    import yaml  # late, so that doctor can report that it is missing

    plain = {
        name: value for name, value in dataclasses.asdict(config).items() if name not in ("json", "debug")
    }
    text: str = yaml.safe_dump(_without_tuples(plain), sort_keys=False)
    return text


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, list | tuple) else value
