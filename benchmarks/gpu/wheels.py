"""Packages that a machine with torch alone lacks: collected where there is a network, installed where not.

    python -m benchmarks.gpu.wheels [scipy]    # `make gpu-wheels`: collects them in build/gpu-wheels

Mask2Former, ours and transformers', needs scipy too, whose wheel alone has 34 MiB.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS, INSTALLED = ROOT / "build" / "gpu-wheels", ROOT / "build" / "gpu-packages"
PACKAGES = {
    "zarr": "zarr",
    "numcodecs": "numcodecs",
    "donfig": "donfig",
    "google-crc32c": "google_crc32c",
    "crc32c": "crc32c",
    "blake3": "blake3",
    "msgspec": "msgspec",
    "jsonargparse": "jsonargparse",
    "pycocotools": "pycocotools",
    "decord": "decord",
    "obstore": "obstore",
    "webdataset": "webdataset",
    "braceexpand": "braceexpand",
    "shtab": "shtab",
}
"""Name in the index -> module: what torch, torchvision, timm, transformers and lightning do not bring."""
EXTRA = {"scipy": "scipy"}
"""As PACKAGES, but so large that it is collected only where it is named."""
NEEDED = ("numpy", "PIL", "yaml", "safetensors", "torch", "torchvision", "timm", "transformers", "lightning")
MOST_BYTES = 40 << 20
PYTHON = "3.12"
_PLATFORMS = ("manylinux2010_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28)))


def collect(extra: Sequence[str] = (), folder: Path = WHEELS) -> int:
    """Downloads wheels for Python 3.12 on Linux; returns their bytes.

    Raises SystemExit where they, `extra` apart, are more than MOST_BYTES.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = ["--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:", "--no-deps"]
    words += [word for name in _PLATFORMS for word in ("--platform", name)]
    words += ["--constraint", str(ROOT / "constraints.txt"), "--dest", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", *words, *PACKAGES, *extra], check=True
    )
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.whl")}
    total = sum(size for name, size in sizes.items() if name.split("-")[0] not in EXTRA)
    if total > MOST_BYTES:
        sys.exit(f"{folder} holds {total} bytes, more than {MOST_BYTES}: remove older versions from it")
    print(f"{len(sizes)} wheels in {folder}, {sum(sizes.values()) / 2**20:.1f} MiB")
    return total


def prepared_environment(wheels: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment of processes that find all packages, after installing those that are missing.

    Raises SystemExit, with what to do, where a package is missing and no wheel of it is there.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        sys.exit(f"this machine lacks {', '.join(missing)}, which no wheel here brings: install them first")
    places = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    lacking = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    for name, module in EXTRA.items():
        if importlib.util.find_spec(module) is None:
            if any(wheels.glob(f"{name}-*.whl")):
                lacking.append(name)
            else:
                print(f"no {name}: Mask2Former is not measured; make gpu-wheels ARGS={name}", file=sys.stderr)
    if not lacking:
        return {**environment, "PYTHONPATH": os.pathsep.join(places)}
    if not any(wheels.glob("*.whl")):
        sys.exit(
            f"this machine lacks {', '.join(lacking)}: run `make gpu-wheels` where there is a network, and "
            f"bring {wheels} here"
        )
    words = ["--no-index", "--no-deps", "--find-links", str(wheels), "--target", str(INSTALLED), "--upgrade"]
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *words, *lacking], check=False)
    if done.returncode:
        sys.exit(
            f"pip could not install {', '.join(lacking)} from {wheels} for Python {sys.version.split()[0]}; "
            f"its wheels are for {PYTHON}: run `make gpu-wheels` again"
        )
    return {**environment, "PYTHONPATH": os.pathsep.join([*places, str(INSTALLED)])}


if __name__ == "__main__":
    collect(sys.argv[1:])
