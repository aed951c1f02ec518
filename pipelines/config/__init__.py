"""Settings of every verb, one frozen dataclass each; the only place of defaults.

Flags are the field names with hyphens, YAML keys the field names with underscores. A value is taken from the
first of: flags, `--config FILE.yaml`, the recipe (train-head), the default here. A default of None is chosen
when the verb runs, and the field says how. Nothing heavy is imported here, so that `--help` is quick.
"""

from pipelines.config.engines import RayConfig, SlurmConfig
from pipelines.config.extraction import ExtractConfig, ForecastConfig, PlanConfig
from pipelines.config.fields import VerbConfig
from pipelines.config.first_steps import CompletionConfig, DemoConfig, DescribeConfig, DoctorConfig
from pipelines.config.scores import EvaluateConfig, ProbeConfig, ReportConfig
from pipelines.config.stores import ConvertConfig, GcConfig, InfoConfig, StoreConfig, VerifyConfig
from pipelines.config.trained_heads import ExportConfig, PredictConfig
from pipelines.config.training import ManyHeadsConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from pipelines.config.transfer import CatalogConfig, PullConfig, PushConfig
from pipelines.config.written import GROUP_RECORD, RUN_CONFIG, config_yaml

__all__ = [
    "GROUP_RECORD",
    "RUN_CONFIG",
    "CatalogConfig",
    "CompletionConfig",
    "ConvertConfig",
    "DemoConfig",
    "DescribeConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ExtractConfig",
    "ForecastConfig",
    "GcConfig",
    "InfoConfig",
    "ManyHeadsConfig",
    "OptimizerConfig",
    "PlanConfig",
    "PredictConfig",
    "ProbeConfig",
    "PullConfig",
    "PushConfig",
    "RayConfig",
    "ReportConfig",
    "ScheduleConfig",
    "SlurmConfig",
    "StoreConfig",
    "TrainConfig",
    "VerbConfig",
    "VerifyConfig",
    "config_yaml",
]  # fmt: skip
