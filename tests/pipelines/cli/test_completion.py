"""Completion as bash itself makes it of the printed script."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.__main__ import main

SCRIPT = """
source {file}
COMP_WORDS=({words}); COMP_CWORD={last}
_shtab_permafrost
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("permafrost tra", {"train-head"}),
        ("permafrost train-head --optim", {"--optimizer.lr", "--optimizer.betas"}),
        ("permafrost extract --pixels s", {"source", "stored"}),
    ],
)
def test_bash_completes(
    words: str, expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "--shell", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    script = SCRIPT.format(file=tmp_path / "script", words=words, last=len(words.split()) - 1)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert expected <= set(done.stdout.split()), done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script_of_theirs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "--shell", shell]) == 0
    assert "train-head" in capsys.readouterr().out
