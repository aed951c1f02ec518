"""Settings that changed when a run was resumed: which may, and from which step each value held.

<run>/history.json   {"changes": [{"step": 500, "changed": {"optimizer.lr": {"before": 0.1, "after": 0.01}}}]}

config.yaml holds the settings of the last session, under a comment with the changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import RUN_CONFIG, OptimizerConfig, TrainConfig, config_yaml
from pipelines.config.fields import fixed_settings
from pipelines.errors import UsageError
from pipelines.json_output import write_json
from stores.errors import IdentityError
from stores.small_files import read_json, read_parsed

HISTORY = "history.json"
_FIXED = {
    *fixed_settings(TrainConfig),
    *(f"optimizer.{name}" for name in fixed_settings(OptimizerConfig)),
}
_OF_A_SESSION = {"run", "resume", "take_over", "store", "stores", "data", "seeds"}
"""Settings that say where things are or how a session starts: no history is kept of them."""

Changes = Mapping[str, tuple[Any, Any]]
"""Dotted name of a setting -> its value before and after."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingsChange:
    """What was changed when a run was resumed."""

    step: int
    """Optimiser steps done then; later steps had the new values."""
    changed: Changes


def recorded_settings(folder: Path) -> dict[str, Any]:
    """The settings in a run's config.yaml; empty where there is none. Raises UsageError for a broken one."""
    import yaml  # late, so that doctor can say that it is missing

    path = folder / RUN_CONFIG
    try:
        found = read_parsed(path, yaml.safe_load)
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not the configuration of a run: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not the configuration of a run: found {str(found)[:200]!r}")
    return found


def changed_settings(folder: Path, config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which `config` differs from what the run's last session had.

    Raises IdentityError, with the field and both values, for one that a resumed run must keep.
    """
    import yaml  # late, as above

    before = dict(flat_settings(recorded_settings(folder)))
    now = dict(flat_settings(yaml.safe_load(config_yaml(config))))
    # A setting that is not recorded is newer than the run, which had its default.
    changed = {
        name: (before[name], value)
        for name, value in now.items()
        if name in before and before[name] != value and name.partition(".")[0] not in _OF_A_SESSION
    }
    for name in sorted(changed.keys() & _FIXED):
        advice = "a resumed run must keep it; pass another --run to change it"
        raise IdentityError(name, *changed[name], advice)
    return changed


def read_history(folder: Path) -> list[SettingsChange]:
    """The changes of a run's settings, in order; none where it was never resumed with other settings.

    Raises UsageError for a broken file.
    """
    path = folder / HISTORY
    try:
        return [
            SettingsChange(
                step=int(entry["step"]),
                changed={
                    name: (values["before"], values["after"]) for name, values in entry["changed"].items()
                },
            )
            for entry in read_json(path)["changes"]
        ]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not the history of a run: {type(error).__name__} {error}") from error


def with_change(history: Sequence[SettingsChange], step: int, changed: Changes) -> list[SettingsChange]:
    """The history of a run resumed from `step` with other settings.

    What was changed at later steps, which are trained again, now holds from `step` on.

    >>> first = SettingsChange(step=10, changed={"max_steps": (20, 40)})
    >>> [change.step for change in with_change([first], 5, {"optimizer.lr": (0.1, 0.01)})]
    [5, 5]
    """
    kept = [SettingsChange(step=min(change.step, step), changed=change.changed) for change in history]
    return [*kept, SettingsChange(step=step, changed=changed)] if changed else kept


def write_history(folder: Path, history: Sequence[SettingsChange]) -> None:
    """Writes history.json, unless nothing was ever changed."""
    if not history:
        return
    entries = [
        {
            "step": change.step,
            "changed": {name: {"before": old, "after": new} for name, (old, new) in change.changed.items()},
        }
        for change in history
    ]
    write_json(folder / HISTORY, {"changes": entries})


def history_comment(history: Sequence[SettingsChange]) -> str:
    """The comment above config.yaml: since when its values hold; empty where they always did.

    >>> print(history_comment([SettingsChange(step=10, changed={"optimizer.lr": (0.1, 0.01)})]), end="")
    # Changed when the run was resumed (history.json):
    # from step 10: optimizer.lr 0.01 (before: 0.1)
    """
    lines = [
        f"# from step {change.step}: {name} {json.dumps(new)} (before: {json.dumps(old)})\n"
        for change in history
        for name, (old, new) in change.changed.items()
    ]
    return "".join(["# Changed when the run was resumed (history.json):\n", *lines]) if lines else ""


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings without nesting, by dotted name.

    >>> dict(flat_settings({"seed": 0, "optimizer": {"lr": 0.1}}))
    {'seed': 0, 'optimizer.lr': 0.1}
    """
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat_settings(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
