"""The demo: the whole path on made scenes or clips with the bundled tiny backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.config import DemoConfig


def run(config: DemoConfig) -> dict[str, Any]:
    """See `run_demo` of pipelines/demo/ade20k.py, `run_coco_demo` of coco_path.py, `run_k400_demo` of
    k400_path.py."""
    from pipelines.demo.ade20k import DemoSize, run_demo  # late: scenes and pretraining need none of it

    if config.dataset == "coco":
        from pipelines.demo.coco import run_coco_demo

        return run_coco_demo(config, DemoSize())
    if config.dataset == "k400":
        from pipelines.demo.k400 import ClipDemoSize, run_k400_demo

        return run_k400_demo(config, ClipDemoSize())
    return run_demo(config, DemoSize())
