"""The verbs by name, with the module and the settings of each."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import config
from pipelines.config.analyses import AnalyseConfig
from pipelines.config.serving import ServeConfig


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
        text="Estimates size and time of an extraction and whether caching pays; writes nothing.",
        example="--dataset ade20k --model swinv2-t --head bifpn1,linear",
    ),
    "extract": Verb(
        module="pipelines.verbs.extract_features",
        config_class=config.ExtractConfig,
        text="Extracts the features of a data set's split into a store; resumes an unfinished one.",
        example="--dataset ade20k --data data/ADEChallengeData2016 --model swinv2-t --levels p4,p5 --views 4",
    ),
    "status": Verb(
        module="pipelines.verbs.store_status",
        config_class=config.StoreConfig,
        text="Lists written, missing and skipped rows of a store, with the reasons.",
        example="--store features/ade20k-training-swinv2-t-int8-1f3a9c2e",
    ),
    "info": Verb(
        module="pipelines.verbs.store_info",
        config_class=config.InfoConfig,
        text="Prints identity, geometry and sizes of a store; --out page.html writes a page of it.",
        example="--store features/ade20k-training-swinv2-t-int8-1f3a9c2e",
    ),
    "verify": Verb(
        module="pipelines.verbs.verify_store",
        config_class=config.VerifyConfig,
        text="Checks structure and sizes of a store; --full every checksum, --source the source files; "
        "--repair prepares damaged shards for extraction.",
        example="--store features/ade20k-training-swinv2-t-int8-1f3a9c2e --full",
    ),
    "push": Verb(
        module="pipelines.verbs.transfer.push_store",
        config_class=config.PushConfig,
        text="Copies a complete store to object storage, compares the copy and lists it in catalog.json.",
        example="--store features/ade20k-training-swinv2-t-int8-1f3a9c2e --to s3://bucket/features",
    ),
    "pull": Verb(
        module="pipelines.verbs.transfer.pull_store",
        config_class=config.PullConfig,
        text="Copies a store from a URL to a disk: whole, some levels or some records.",
        example="--store s3://bucket/features/ade20k-training-swinv2-t-int8-1f3a9c2e --levels p4,p5",
    ),
    "catalog": Verb(
        module="pipelines.verbs.transfer.list_catalog",
        config_class=config.CatalogConfig,
        text="Lists the stores under a folder or URL: data, model, levels, views, bytes, content digest.",
        example="--stores s3://bucket/features",
    ),
    "convert": Verb(
        module="pipelines.verbs.convert_store",
        config_class=config.ConvertConfig,
        text="Makes a store of another codec from a complete one, without the backbone.",
        example="--store features/ade20k-training-swinv2-t-float16-1f3a9c2e --codec q2",
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
        text="Measures a run's metrics on a test store.",
        example="--run runs/first",
    ),
    "report": Verb(
        module="pipelines.verbs.report",
        config_class=config.ReportConfig,
        text="Compares runs (scores, parameters, step time, memory, hours) with each other and the paper.",
        example="runs/first runs/second --out report.csv",
    ),
    "predict": Verb(
        module="pipelines.verbs.predict",
        config_class=config.PredictConfig,
        text="Runs the frozen backbone and a trained head on new images or videos.",
        example="--run runs/first --input photo.jpg",
    ),
    "export": Verb(
        module="pipelines.verbs.export_head",
        config_class=config.ExportConfig,
        text="Writes the trained head of a run as a file to share, with config.json and a model card.",
        example="--run runs/first --out shared/head.safetensors",
    ),
    "probe": Verb(
        module="pipelines.verbs.probe",
        config_class=config.ProbeConfig,
        text="Classifies stored features by k-NN or logistic regression, without training a head.",
        example="--store features/in1k-train-swinv2-b-float16-1f3a9c2e --method knn",
    ),
    "analyse": Verb(
        module="pipelines.analyses.analyse",
        config_class=AnalyseConfig,
        text="Analyses a store, a run or a live backbone: cka, attention, kernels, pca, neighbours, codec.",
        example="--kind cka --store features/ade20k-training-swinv2-t-int8-1f3a9c2e",
    ),
    "serve": Verb(
        module="pipelines.serving.serve",
        config_class=ServeConfig,
        text="Serves the pages of a folder's stores and runs over HTTP, read-only, anew while runs train.",
        example="--root .",
    ),
    "describe": Verb(
        module="pipelines.verbs.describe_data",
        config_class=config.DescribeConfig,
        text="Looks at a folder of own data and writes a description, which stands for a data set's name.",
        example="photos --out my.yaml",
    ),
    "gc": Verb(
        module="pipelines.verbs.collect_garbage",
        config_class=config.GcConfig,
        text="Lists files left behind by interrupted extractions; --delete removes them.",
        example="--stores features",
    ),
    "doctor": Verb(
        module="pipelines.verbs.doctor",
        config_class=config.DoctorConfig,
        text="Checks the environment and prints how to fix what is broken.",
        example="",
    ),
    "completion": Verb(
        module="pipelines.verbs.shell_completion",
        config_class=config.CompletionConfig,
        text="Prints a script with which a shell completes the verbs and flags of `permafrost`.",
        example="--shell bash",
    ),
    "demo": Verb(
        module="pipelines.demo",
        config_class=config.DemoConfig,
        text="Runs the whole pipeline on generated data with the bundled small backbone, under runs/demo.",
        example="",
    ),
}
