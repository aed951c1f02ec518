"""Command lines, files and recipes become configs; what is wrong is refused with the words of its source."""

from pathlib import Path

import pytest
import yaml

from pipelines.cli.arguments import parse, split_general_flags, verb_named
from pipelines.cli.head_variants import parse_command
from pipelines.cli.settings import settings_of
from pipelines.cli.verbs import VERBS
from pipelines.config import (
    EvaluateConfig,
    ExtractConfig,
    GcConfig,
    ManyHeadsConfig,
    OptimizerConfig,
    PlanConfig,
    PredictConfig,
    ReportConfig,
    TrainConfig,
    VerifyConfig,
    config_yaml,
)
from pipelines.errors import UsageError
from stores.errors import NoSuchStore
from tests.pipelines.made_stores import make_store

EXTRACT = ["--dataset", "ade20k", "--model", "swinv2-t"]


def test_every_flag_of_extract() -> None:
    words = (
        "--dataset ade20k --data some/PATH --split training --model swinv2-t --weights random:0 --stores f"
        " --levels p4,p5 --views 4 --codec int8 --pixels stored --subset 1% --engine local --max-failed 3"
        " --seed 7 --crop-size 128 --short-side 160 --view-recipe ade20k --model-args.img_size 256"
        " --precision fp32 --device cpu --batch-size 2 --workers 1 --shard-rows 8"
    )
    assert parse(ExtractConfig, words.split()) == ExtractConfig(
        dataset="ade20k",
        data="some/PATH",
        split="training",
        model="swinv2-t",
        weights="random:0",
        stores="f",
        levels=("p4", "p5"),
        views=4,
        codec="int8",
        pixels="stored",
        subset="1%",
        engine="local",
        max_failed=3,
        seed=7,
        crop_size=128,
        short_side=160,
        view_recipe="ade20k",
        model_args={"img_size": 256},
        precision="fp32",
        device="cpu",
        batch_size=2,
        workers=1,
        shard_rows=8,
    )


def test_every_flag_of_the_other_verbs() -> None:
    assert parse(VerifyConfig, ["--store", "PATH", "--full", "--source"]) == VerifyConfig(
        store="PATH", full=True, source=True
    )
    assert parse(GcConfig, ["--stores=f", "--delete"]) == GcConfig(stores="f", delete=True)
    assert parse(EvaluateConfig, ["--run", "r", "--store", "s", "--live", "--json"]) == EvaluateConfig(
        run="r", store="s", live=True, json=True
    )
    assert parse(PredictConfig, ["--run", "r", "--input", "a.jpg", "--out", "o"]) == PredictConfig(
        run="r", input="a.jpg", out="o"
    )
    words = "--head bifpn5 --dataset ade20k --model swinv2-b --store a,b --run r --batch-size 2"
    train = parse(TrainConfig, [*words.split(), "--max-steps", "10", "--online", "--logger", "tensorboard"])
    assert (train.head, train.model, train.store, train.run) == ("bifpn5", "swinv2-b", ("a", "b"), "r")
    assert (train.max_steps, train.batch_size, train.online, train.logger) == (10, 2, True, ("tensorboard",))


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_setting_is_a_flag_that_round_trips_through_yaml(verb: str, tmp_path: Path) -> None:
    config_class = VERBS[verb].config_class
    settings = settings_of(config_class)
    examples = {int: "3", float: "0.5", str: "word", bool: "true"}
    own = {"k": "3,5", "part": "0/2", "stop_after": "3h50m", "slurm.time": "2h", "slurm.before_end": "3m"}
    own |= {"dataset": "ade20k", "crop_size": "64", "logger": "wandb"} | (
        {"rows": "16", "batch": "16"} if verb == "analyse" else {}
    )
    words = []
    for setting in settings.values():
        if setting.name in ("json", "debug", "recipe", "resume", "data_fraction"):
            continue  # the last is another way to write subset
        value = own.get(setting.name) or examples.get(setting.types[0], "word")
        if setting.choices:
            value = setting.choices[-1]
        elif setting.is_mapping:
            value = "{a: 1}"
        elif setting.name in ("optimizer.betas", "schedule.milestones", "mean", "std"):
            value = "0.5,0.6"
        words += [setting.flag] if setting.is_switch else [setting.flag, value]
    config = parse(config_class, words)
    file = tmp_path / "config.yaml"
    file.write_text(config_yaml(config))
    assert parse(config_class, ["--config", str(file)]) == config


def test_every_setting_is_explained() -> None:
    for verb in VERBS.values():
        assert not [s.name for s in settings_of(verb.config_class).values() if len(s.text) < 15]


def test_flags_win_over_files_wherever_they_stand(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("seed: 1\nviews: 4\nbatch_size: 8\nlevels: [p4, p5]\n")
    second.write_text("seed: 2\nviews: 5\n")
    words = [*EXTRACT, "--seed", "3", "--config", str(first), f"--config={second}"]
    config = parse(PlanConfig, words)
    assert (config.seed, config.views, config.batch_size, config.levels) == (3, 5, 8, ("p4", "p5"))


def test_recipe_under_config_under_flags(tmp_path: Path) -> None:
    recipe, own = tmp_path / "recipe.yaml", tmp_path / "own.yaml"
    recipe.write_text(
        "max_steps: 100\nhead_settings: {width: 512, norm: gn}\noptimizer: {lr: 0.1, clip_norm: 1}\n"
    )
    own.write_text(f"recipe: {recipe}\nhead_settings: {{width: 64}}\noptimizer: {{weight_decay: 0.3}}\n")
    config = parse(TrainConfig, ["--head", "fpn", "--config", str(own), "--lr", "0.2"])
    assert config.max_steps == 100
    assert config.head_settings == {"width": 64, "norm": "gn"}
    assert config.optimizer == OptimizerConfig(lr=0.2, clip_norm=1.0, weight_decay=0.3)


def test_the_default_recipe_of_a_head_is_named() -> None:
    config = parse(TrainConfig, ["--head", "bifpn3", "--dataset", "ade20k"])
    assert config.recipe == "ade20k-upernet-frozen"
    assert parse(TrainConfig, ["--head", "bifpn3", "--dataset", "none"]).recipe is None


def test_the_data_set_of_the_recipe_is_that_of_the_stores(tmp_path: Path) -> None:
    store = make_store(tmp_path, records=4)
    assert parse(TrainConfig, ["--head", "linear", "--store", str(store)]).recipe == "ade20k-linear"
    assert parse(TrainConfig, ["--head", "linear", "--stores", str(tmp_path)]).recipe == "ade20k-linear"
    assert parse(TrainConfig, ["--head", "linear", "--stores", str(tmp_path / "none")]).recipe is None
    with pytest.raises(NoSuchStore):
        parse(TrainConfig, ["--head", "linear", "--store", str(tmp_path / "none")])


def test_resume_starts_from_the_configuration_of_the_run(tmp_path: Path) -> None:
    config = parse(TrainConfig, ["--head", "fpn", "--dataset", "none", "--max-steps", "7", "--lr", "0.2"])
    (tmp_path / "config.yaml").write_text(config_yaml(config))
    resumed = parse(TrainConfig, ["--run", str(tmp_path), "--resume", "--max-steps", "9"])
    assert (resumed.head, resumed.resume, resumed.max_steps, resumed.optimizer.lr) == ("fpn", True, 9, 0.2)
    with pytest.raises(UsageError, match="not the folder of a run"):
        parse(TrainConfig, ["--run", str(tmp_path / "none"), "--resume"])
    with pytest.raises(UsageError, match="needs --run"):
        parse(TrainConfig, ["--head", "fpn", "--resume"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-stepz", "3"], "--max-stepz: unknown flag; did you mean --max-steps?"),
        (["--learning-rate", "3"], "unknown flag"),
        (["--max-steps"], "--max-steps: expected a value"),
        (["--max-steps", "--lr", "1"], "--max-steps: expected a value"),
        (["--max-steps", "many"], "--max-steps: expected a whole number, found 'many'"),
        (["--lr", "fast"], "--lr: expected a number, found 'fast'"),
        (["--precision", "fp8"], "--precision: expected one of fp32, bf16, found 'fp8'"),
        (["--resume=maybe"], "expected true or false"),
        (["HEAD=linear"], "unexpected 'HEAD=linear': write flags as --name value, here --head linear"),
        (["--config", "absent.yaml"], "absent.yaml"),
        (["--recipe", "absent"], "unknown recipe 'absent'"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(TrainConfig, ["--head", "linear", "--dataset", "none", *words])
    assert message in str(caught.value)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_flag_without_text_is_refused(verb: str) -> None:
    """As a shell leaves it of --levels "$LEVELS": nothing was said, and None often means everything."""
    config_class = VERBS[verb].config_class
    for setting in settings_of(config_class).values():
        for text in ("", " "):
            with pytest.raises(UsageError) as caught:
                parse_command(config_class, [f"{setting.flag}={text}"])
            assert str(caught.value).startswith(
                f"{setting.flag}: expected {setting.expected}, found {text!r}"
            )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--levels", "p4,,p5"], "--levels: expected a list such as a,b, found 'p4,,p5'"),
        (["--levels", ","], "--levels: expected a list such as a,b, found ','"),
        (["--levels", "[]"], "--levels: expected a list such as a,b, found '[]'"),
        (["--store", "a,"], "--store: expected a list such as a,b, found 'a,'"),
        (["--head", "fpn,,linear"], "--head: expected names separated by commas, found 'fpn,,linear'"),
        (["--head", "fpn,"], "--head: expected names separated by commas, found 'fpn,'"),
        (["--lr", "1e-3,"], "--lr: expected values separated by commas, found '1e-3,'"),
        (["--config", ""], "--config: expected a file, found ''"),
    ],
)
def test_a_list_with_nothing_in_it_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_command(TrainConfig, ["--head", "linear", "--dataset", "none", *words])
    assert message in str(caught.value)


def test_a_list_that_may_be_empty_is_taken(tmp_path: Path) -> None:
    config = parse(TrainConfig, ["--head", "linear", "--dataset", "none", "--milestones", "[]"])
    assert config.schedule.milestones == ()
    with pytest.raises(UsageError, match="unexpected ''"):
        parse(ReportConfig, ["runs/a", ""])
    file = tmp_path / "empty.yaml"
    for text in ("levels: []", "subset: ''"):
        file.write_text(text)
        with pytest.raises(UsageError, match=r"empty\.yaml: (levels|subset): expected"):
            parse(PlanConfig, [*EXTRACT, "--config", str(file)])


def test_required_flags_are_named() -> None:
    with pytest.raises(UsageError, match="--dataset and --model must be given"):
        parse(PlanConfig, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_stepz: 3", "max_stepz: unknown setting; did you mean max_steps?"),
        ("optimizer: {lrr: 3}", "optimizer.lrr: unknown setting; did you mean optimizer.lr?"),
        ("max_steps: many", "max_steps: expected a whole number, found 'many'"),
        ("- 3", "expected settings"),
        ("a: [", "while parsing"),
    ],
)
def test_wrong_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        parse(TrainConfig, ["--head", "linear", "--dataset", "none", "--config", str(file)])
    assert message in str(caught.value)
    assert "wrong.yaml" in str(caught.value)


def test_text_values_are_kept_verbatim() -> None:
    config = parse(PlanConfig, [*EXTRACT, "--data", "x/{000..003}.tar", "--subset", "1%", "--stores", "7"])
    assert (config.data, config.subset, config.stores) == ("x/{000..003}.tar", "1%", "7")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text("stores: ~/feat\nmodel_args: {img_size: 256}")
    config = parse(PlanConfig, [*EXTRACT, "--data", "~/ade/{0..3}.tar", "--config=~/own.yaml"])
    assert (config.stores, config.data) == (f"{tmp_path}/feat", f"{tmp_path}/ade/{{0..3}}.tar")
    (tmp_path / "head.yaml").write_text("head: linear\nstore: [~/a, b~/c]")
    trained = parse(TrainConfig, ["--config=~/head.yaml", "--dataset=none", "--val-store=~"])
    assert (trained.store, trained.val_store) == ((f"{tmp_path}/a", "b~/c"), str(tmp_path))
    both = parse(TrainConfig, ["--head", "linear", "--dataset", "none", "--store", "a~,~/b, ~/c"])
    assert both.store == ("a~", f"{tmp_path}/b", f"{tmp_path}/c")
    assert parse(ReportConfig, ["~/one", "--out=~/x.csv"]).run == (f"{tmp_path}/one",)
    several = parse_command(TrainConfig, ["--head", "fpn,linear", "--dataset", "none", "--run=~/two"])
    assert isinstance(several, ManyHeadsConfig) and several.run == f"{tmp_path}/two"


def test_general_flags_are_taken_out_first() -> None:
    general = split_general_flags(["--nonsense", "--help", "--json", "--print_config"])
    assert (general.help, general.json, general.print_config, general.debug) == (True, True, True, False)
    assert general.rest == ("--nonsense", "--json")


def test_near_verb_is_offered() -> None:
    with pytest.raises(UsageError, match="did you mean extract"):
        verb_named("extrat")
    assert verb_named("gc").module == "pipelines.verbs.collect_garbage"


def test_printed_config_is_yaml_without_output_flags() -> None:
    printed = yaml.safe_load(config_yaml(parse(PlanConfig, [*EXTRACT, "--json", "--levels", "p4"])))
    assert printed["levels"] == ["p4"]
    assert "json" not in printed


def test_a_switch_of_earlier_versions_is_read(tmp_path: Path) -> None:
    for value, expected in (("true", ("tensorboard",)), ("false", ())):
        path = tmp_path / "config.yaml"
        path.write_text(f"head: linear\ntensorboard: {value}\n")
        assert parse(TrainConfig, ["--config", str(path)]).logger == expected


def test_an_unknown_logger_is_refused() -> None:
    with pytest.raises((UsageError, ValueError), match="expected one of tensorboard, wandb"):
        parse(TrainConfig, ["--head", "linear", "--logger", "mlflow"])
