"""`doctor` names each broken thing and its fix."""

import errno
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from pipelines.config import DoctorConfig
from pipelines.verbs.doctor import (
    Finding,
    Unhealthy,
    check_disk,
    check_imports,
    check_packages,
    check_python,
    check_video,
    run,
)


def versions(**installed: str) -> Callable[[str], str]:
    def version_of(name: str) -> str:
        if name.replace("-", "_") not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name.replace("-", "_")]

    return version_of


def loading(**errors: Exception) -> Callable[[str], Any]:
    def load(name: str) -> Any:
        if name in errors:
            raise errors[name]

    return load


def broken(findings: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings if finding.fix}


def test_this_environment_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run(DoctorConfig(stores=str(tmp_path / "features")))
    assert summary["broken"] == []
    assert "torch" in summary["findings"]
    assert "ok  python" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_old_python() -> None:
    assert "3.11 or newer" in check_python((3, 10, 4)).fix
    assert not check_python((3, 12, 0)).fix


def test_versions_are_judged_without_importing() -> None:
    found = broken(
        check_packages(
            ["timm>=1.0.31", "lightning>=2.6.4,<2.7", "zarr>=3.1.6", "numpy>=2.0", "ray>=2 ; extra == 'ray'"],
            versions(timm="1.0.20", lightning="2.6.3", numpy="2.4"),
        )
    )
    assert set(found) == {"timm", "lightning", "zarr"}
    assert "expected >=1.0.31" in found["timm"].text
    assert "pip install 'timm>=1.0.31'" in found["timm"].fix
    assert "malicious" in found["lightning"].text
    assert found["zarr"].text == "not installed"


def test_cpu_torch_beside_the_torchvision_of_pypi(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    error = RuntimeError("operator torchvision::nms does not exist")
    found = broken(check_imports(loading(torchvision=error, timm=error)))
    assert set(found) == {"import torchvision", "import timm"}
    for finding in found.values():
        assert "CPU-only build" in finding.fix
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "CPU-only" not in broken(check_imports(loading(timm=error)))["import timm"].fix


def test_video_decoders() -> None:
    assert not check_video(loading()).fix
    one = check_video(loading(decord=OSError("libdecord.so")))
    assert not one.fix
    assert "decord: libdecord.so" in one.text
    assert check_video(loading(decord=ImportError("no decord"), av=ImportError("no av"))).fix


def test_the_disk_check_uses_the_nearest_folder(tmp_path: Path) -> None:
    assert "MB/s with fsync" in check_disk(tmp_path / "not" / "yet").text
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert str(tmp_path) in check_disk(blocked / "below").name


def test_a_read_only_disk_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ReadOnly(type(tmp_path)):  # type: ignore[misc]
        def open(self, *_: object, **__: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system", str(self))

        def unlink(self, missing_ok: bool = False) -> None:
            self.open()

    monkeypatch.setattr("pipelines.verbs.doctor.local_folder", ReadOnly)
    with pytest.raises(Unhealthy, match="broken: disk of"):
        run(DoctorConfig(stores=str(tmp_path)))
    out = capsys.readouterr().out
    assert f"BAD disk of {tmp_path}: not writable: [Errno 30]" in out and "pass another --stores" in out


def test_stores_that_are_no_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for stores, message in ("s3://bucket/x", "is a URL"), (str(file), "is a file"):
        assert main(["doctor", "--stores", stores]) == 2
        assert message in capsys.readouterr().err


def test_what_is_broken_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "pipelines.verbs.doctor.check_python", lambda: Finding("python", "2.7", "install a newer one")
    )
    with pytest.raises(Unhealthy, match="broken: python") as caught:
        run(DoctorConfig(stores=str(tmp_path)))
    assert caught.value.summary["broken"] == ["python"]
    assert sys.version_info >= (3, 11)
