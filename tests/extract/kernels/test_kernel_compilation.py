"""Kernels compiled for absent GPUs: what Triton's interpreter skips, and what does not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton: it comes with a GPU's torch")

SHARED_BYTES = {"80": 163 << 10, "86": 99 << 10, "90": 227 << 10, "100": 227 << 10, "120": 99 << 10}
"""What a program may have, by compute capability: CUDA C++ Programming Guide, technical specifications."""


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        pytest.param("86", "float16", marks=pytest.mark.ci),
        *(
            pytest.param(capability, dtype, marks=pytest.mark.slow)
            for capability in SHARED_BYTES
            for dtype in ("float16", "bfloat16")
        ),
    ],
)
def test_every_kernel_compiles_and_fits(capability: str, dtype: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.extract.kernels.compiled_kernels", capability, dtype],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name for name, _ in found} == {"attend_small", "attend_large", "_linear_gelu", "_add_normed"}
    assert all(0 < shared <= SHARED_BYTES[capability] for _, shared in found), found
