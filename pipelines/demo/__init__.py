"""The demo: the whole pipeline on generated scenes or clips with the bundled small backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.config import DemoConfig


def run(config: DemoConfig) -> dict[str, Any]:
    """See `run_demo` of pipelines/demo/ade20k.py, `run_coco_demo` of coco.py, `run_k400_demo` of k400.py,
    `run_own_demo` of own.py, `run_depth_demo` of depth.py, `run_pose_demo` of pose.py."""
    # Late: each loads torch and its data set's decoder; made scenes and pretraining need none of it.
    from pipelines.demo.ade20k import DemoSize, run_demo

    if config.dataset == "coco":
        # Late, as above.
        from pipelines.demo.coco import run_coco_demo

        return run_coco_demo(config, DemoSize())
    if config.dataset == "k400":
        # Late, as above.
        from pipelines.demo.k400 import ClipDemoSize, run_k400_demo

        return run_k400_demo(config, ClipDemoSize())
    if config.dataset == "own":
        # Late, as above.
        from pipelines.demo.own import OwnDemoSize, run_own_demo

        return run_own_demo(config, OwnDemoSize())
    if config.dataset == "depth":
        # Late, as above.
        from pipelines.demo.depth import DepthDemoSize, run_depth_demo

        return run_depth_demo(config, DepthDemoSize())
    if config.dataset == "pose":
        # Late, as above.
        from pipelines.demo.pose import PoseDemoSize, run_pose_demo

        return run_pose_demo(config, PoseDemoSize())
    return run_demo(config, DemoSize())
