"""The verbs by name: the module that does each, and the settings it takes."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import config


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """One verb. Its module has `run(config) -> dict`, the summary that `--json` prints."""

    module: str
    config_class: type[config.VerbConfig]
    text: str
    example: str


VERBS: dict[str, Verb] = {
    "plan": Verb(
        module="pipelines.verbs.plan_store",
        config_class=config.ForecastConfig,
        text="Rows, bytes, files, free space and time of an extraction, and whether it pays; writes nothing.",
        example="--dataset ade20k --model swinv2-t --head bifpn1,linear",
    ),
    "extract": Verb(
        module="pipelines.verbs.extract_features",
        config_class=config.ExtractConfig,
        text="Fills the store of a data set's split, or goes on filling it.",
        example="--dataset ade20k --data data/ADEChallengeData2016 --model swinv2-t --levels p4,p5 --views 4",
    ),
    "status": Verb(
        module="pipelines.verbs.store_status",
        config_class=config.StoreConfig,
        text="What stands in a store, what is missing, what was skipped and why.",
        example="--store features/ade20k-training-swinv2-t-int8-1f3a9c2e",
    ),
    "info": Verb(
        module="pipelines.verbs.store_info",
        config_class=config.StoreConfig,
        text="Identity, geometry and sizes of a store.",
        example="--store features/ade20k-training-swinv2-t-int8-1f3a9c2e",
    ),
    "verify": Verb(
        module="pipelines.verbs.verify_store",
        config_class=config.VerifyConfig,
        text="Checks structure and sizes of a store; --full every checksum, --source the source files.",
        example="--store features/ade20k-training-swinv2-t-int8-1f3a9c2e --full",
    ),
    "train-head": Verb(
        module="pipelines.verbs.train_head",
        config_class=config.TrainConfig,
        text="Trains a head from a store; --resume continues a run exactly.",
        example="--head bifpn5 --run runs/first --max-steps 1000",
    ),
    "evaluate": Verb(
        module="pipelines.verbs.evaluate",
        config_class=config.EvaluateConfig,
        text="The metrics of a run on the test store.",
        example="--run runs/first",
    ),
    "report": Verb(
        module="pipelines.verbs.report",
        config_class=config.ReportConfig,
        text="Runs side by side: head, parameters, scores, step time, memory, hours, and the paper's rows.",
        example="runs/first runs/second --out report.csv",
    ),
    "predict": Verb(
        module="pipelines.verbs.predict",
        config_class=config.PredictConfig,
        text="The frozen backbone and a trained head on new images or videos.",
        example="--run runs/first --input photo.jpg",
    ),
    "gc": Verb(
        module="pipelines.verbs.collect_garbage",
        config_class=config.GcConfig,
        text="Lists the files that killed writers left behind; --delete removes them.",
        example="--stores features",
    ),
    "doctor": Verb(
        module="pipelines.verbs.doctor",
        config_class=config.DoctorConfig,
        text="Explains what is wrong with the environment, by name.",
        example="",
    ),
    "demo": Verb(
        module="pipelines.demo",
        config_class=config.DemoConfig,
        text="The whole path on made data with the bundled tiny backbone, under runs/demo.",
        example="",
    ),
}
