"""What `python -m pipelines` prints and returns, whatever a verb does."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipelines.verbs.doctor
from pipelines.__main__ import main
from pipelines.cli.help_text import WORDS
from pipelines.cli.verbs import VERBS
from pipelines.errors import Interrupted, UsageError, WorkFailed
from stores.errors import CodecError, IdentityError, IncompleteStore, IntegrityError, NoSuchStore, SpaceError

ROOT = Path(__file__).parents[3]


def in_process(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def doctor_that(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], None]:
    """Replaces what `doctor` does."""
    return lambda run: monkeypatch.setattr(pipelines.verbs.doctor, "run", run)


def raising(error: BaseException) -> Callable[[Any], Any]:
    def run(config: Any) -> Any:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("no data folder"), 2, "no data folder"),
        (NoSuchStore("no store at x"), 2, "no store at x"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 2, "No such file"),
        (ValueError("unknown head"), 2, "unknown head"),
        (IdentityError("codec", "int8", "float16"), 3, "identity differs in codec"),
        (IntegrityError("store s, shard 3, rows 4-7"), 4, "store s, shard 3, rows 4-7"),
        (IncompleteStore("no manifest"), 4, "no manifest"),
        (SpaceError("/disk", 2000, 10), 5, "2000 bytes"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "No space left"),
        (CodecError("features of a.jpg are not finite"), 1, "not finite"),
        (WorkFailed("11 records skipped"), 1, "11 records skipped"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
        (KeyError("bug"), 1, "KeyError: 'bug' (unexpected error; rerun with --debug for a traceback)"),
        (KeyboardInterrupt(), 130, "interrupted; to continue: python -m pipelines doctor"),
        (
            Interrupted("python -m pipelines train-head --resume"),
            130,
            "to continue: python -m pipelines train-head",
        ),
    ],
)
def test_errors_become_codes_and_one_line(
    error: BaseException, code: int, message: str, doctor_that: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor_that(raising(error))
    assert main(["doctor", "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("doctor: ")
    assert message in captured.err
    assert "Traceback" not in captured.err
    last = json.loads(captured.out.splitlines()[-1])
    assert last["exit_code"] == code


def test_debug_shows_the_traceback_and_keeps_the_code(
    doctor_that: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor_that(raising(UsageError("no data folder")))
    assert main(["doctor", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("PERMAFROST_DEBUG", "1")
    assert main(["doctor"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_summary_is_the_last_line_of_stdout(doctor_that: Any, capsys: pytest.CaptureFixture[str]) -> None:
    doctor_that(lambda config: {"rows": 3})
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"rows": 3}
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == ""


def valid_json(text: str) -> Any:
    """As a strict reader takes it: NaN and Infinity are no JSON."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in {text}"))


def test_nan_becomes_null(doctor_that: Any, capsys: pytest.CaptureFixture[str]) -> None:
    none = {"score": float("nan"), "of": [float("inf"), {"class": (-float("inf"), 1.5)}]}
    doctor_that(lambda config: none)
    assert main(["doctor", "--json"]) == 0
    shown = {"score": None, "of": [None, {"class": [None, 1.5]}]}
    assert valid_json(capsys.readouterr().out) == shown
    failure = WorkFailed("one head was stopped")
    failure.summary = none  # type: ignore[attr-defined]
    doctor_that(raising(failure))
    assert main(["doctor", "--json"]) == 1
    assert valid_json(capsys.readouterr().out) == {**shown, "error": str(failure), "exit_code": 1}


def test_help_of_the_program_and_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    program = capsys.readouterr().out
    assert main([]) == 2
    assert capsys.readouterr().out == program
    for verb in VERBS:
        assert verb in program
        assert main([verb, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"python -m pipelines {verb}" in shown and "(default )" not in shown
        assert "None:" not in shown, "a default is called one"
        explained = [word for word, text in WORDS.items() if f"{word:<10}{text}" in shown]
        assert explained == (list(WORDS) if verb in ("plan", "extract") else [])


def test_unknown_verb_and_unknown_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian-head"]) == 2
    assert "did you mean train-head?" in capsys.readouterr().err
    assert main(["doctor", "--store", "x"]) == 2
    assert "did you mean --stores?" in capsys.readouterr().err


def test_print_config_runs_nothing(doctor_that: Any, capsys: pytest.CaptureFixture[str]) -> None:
    doctor_that(raising(AssertionError("it ran")))
    assert main(["doctor", "--stores", "elsewhere", "--print_config"]) == 0
    assert capsys.readouterr().out == "stores: elsewhere\n"


def test_help_loads_nothing_heavy() -> None:
    shown = in_process("train-head", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert shown.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "pipelines.config" in imported
    assert not imported & {"torch", "numpy", "jsonargparse", "timm", "lightning", "zarr"}


def test_errors_of_a_real_process_show_no_traceback(tmp_path: Path) -> None:
    done = in_process("info", "--store", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "none") in done.stderr


def test_a_foreign_package_of_our_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "import pipelines"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"package 'stores' resolves to {tmp_path.resolve() / 'stores' / '__init__.py'}" in done.stderr


def test_load_run_is_offered_without_loading_torch() -> None:
    code = "import pipelines, sys; assert 'torch' not in sys.modules; assert 'load_run' in pipelines.__all__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="has no attribute 'laod_run'"):
        pipelines.laod_run  # noqa: B018
