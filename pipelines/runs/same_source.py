"""Whether test rows match the training rows: the same data set, classes and backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from stores.errors import IdentityError
from stores.format.canonical_json import diff_identity


def check_same_source(trained: Mapping[str, Any], test: Mapping[str, Any], where: str) -> None:
    """Raises IdentityError where test rows are of another data set, classes, unit or backbone.

    Their precision may differ: a store from a GPU (fp16) and one from a CPU are of one backbone.

    Args:
        trained: the identity of the training rows.
        test: that of the test rows.
        where: the test rows, for messages.
    """
    for field, mine, theirs in diff_identity(_source_of(trained), _source_of(test)):
        raise IdentityError(field, mine, theirs, f"{where} does not match this run")
    check_same_classes(trained["dataset"]["class_names"], test["dataset"]["class_names"], where)


def check_same_classes(trained: Sequence[str], test: Sequence[str], where: str) -> None:
    """Raises IdentityError where a label means another class: scores would be wrong."""
    for number, (mine, theirs) in enumerate(zip_longest(trained, test)):
        if mine != theirs:
            advice = f"{where} does not match this run: both splits need the same list of classes"
            raise IdentityError(f"dataset.class_names[{number}]", mine, theirs, advice)


def without_precision(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a backbone on any device: fp16 on a GPU and fp32 on a CPU are of the same weights.

    It names the window rule, which identities of earlier releases leave out.
    """
    named = {name: value for name, value in backbone.items() if name != "precision"}
    rule = window_rule_of(backbone)
    return named if rule is None else {**named, "window_rule": rule}


def window_rule_of(backbone: Mapping[str, Any]) -> str | None:
    """Of the identity of a Swin backbone: `partition` where it names none, as in earlier releases. None for
    backbones without windows."""
    return str(backbone.get("window_rule", "partition")) if backbone.get("windows") else None


def _source_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    backbone = without_precision(identity["backbone"])
    dataset = {
        name: identity["dataset"][name] for name in ("name", "task_facts") if name in identity["dataset"]
    }
    return {"dataset": dataset, "backbone": backbone}
