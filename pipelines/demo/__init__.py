"""The demo: the whole path on made scenes with the bundled tiny backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.config import DemoConfig


def run(config: DemoConfig) -> dict[str, Any]:
    """See `pipelines.demo.whole_path.run_demo` and, for coco, `pipelines.demo.coco_path.run_coco_demo`."""
    from pipelines.demo.whole_path import DemoSize, run_demo  # late: scenes and pretraining need none of it

    if config.dataset == "coco":
        from pipelines.demo.coco_path import run_coco_demo

        return run_coco_demo(config, DemoSize())
    return run_demo(config, DemoSize())
