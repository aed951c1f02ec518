"""Ways to store features that people write by hand: torch.save, memmap, HDF5, litdata, zarr, webdataset.

Each takes batches of rows, arrays (n, ...) by name, in order, and gives rows back as a dict of arrays.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
Row = dict[str, Array]


class Written(Protocol):
    def __init__(self, folder: Path, rows: int) -> None: ...
    def put(self, first: int, arrays: Mapping[str, Array]) -> None: ...
    def close(self) -> None: ...
    @staticmethod
    def read(folder: Path, rows: Sequence[int]) -> list[Row]: ...


class TorchSave:
    """A file a row."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder

    def put(self, first: int, arrays: Mapping[str, Array]) -> None:
        for index in range(len(next(iter(arrays.values())))):
            row = {name: torch.from_numpy(array[index].copy()) for name, array in arrays.items()}
            torch.save(row, self._folder / f"{first + index:06}.pt")

    def close(self) -> None:
        return

    @staticmethod
    def read(folder: Path, rows: Sequence[int]) -> list[Row]:
        return [
            {n: x.numpy() for n, x in torch.load(folder / f"{row:06}.pt", weights_only=True).items()}
            for row in rows
        ]


class Memmap:
    """A .npy file an array."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder, self._rows = folder, rows
        self._arrays: dict[str, Array] = {}

    def put(self, first: int, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            if name not in self._arrays:
                self._arrays[name] = np.lib.format.open_memmap(
                    self._folder / f"{name}.npy", "w+", array.dtype, (self._rows, *array.shape[1:])
                )
            self._arrays[name][first : first + len(array)] = array

    def close(self) -> None:
        self._arrays.clear()

    @staticmethod
    def read(folder: Path, rows: Sequence[int]) -> list[Row]:
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
        return [{name: np.array(array[row]) for name, array in arrays.items()} for row in rows]


class Hdf5:
    """One file, a chunk a row."""

    def __init__(self, folder: Path, rows: int) -> None:
        import h5py  # late: an optional package

        self._file, self._rows = h5py.File(folder / "features.h5", "w"), rows

    def put(self, first: int, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            if name not in self._file:
                shape = array.shape[1:]
                self._file.create_dataset(name, (self._rows, *shape), array.dtype, chunks=(1, *shape))
            self._file[name][first : first + len(array)] = array

    def close(self) -> None:
        self._file.close()

    @staticmethod
    def read(folder: Path, rows: Sequence[int]) -> list[Row]:
        import h5py  # late: an optional package

        with h5py.File(folder / "features.h5") as file:
            return [{name: array[row] for name, array in file.items()} for row in rows]


class ZarrPython:
    """An array a level, a chunk a row, without compression."""

    def __init__(self, folder: Path, rows: int) -> None:
        import zarr  # late: not every rival pays for it

        self._group, self._rows = zarr.open_group(folder, mode="w"), rows

    def put(self, first: int, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            if name not in self._group:
                shape = array.shape[1:]
                self._group.create_array(
                    name, shape=(self._rows, *shape), dtype=array.dtype, chunks=(1, *shape), compressors=None
                )
            self._group[name][first : first + len(array)] = array

    def close(self) -> None:
        return

    @staticmethod
    def read(folder: Path, rows: Sequence[int]) -> list[Row]:
        import zarr  # late: not every rival pays for it

        arrays = dict(zarr.open_group(folder, mode="r").arrays())
        return [{name: np.asarray(array[row]) for name, array in arrays.items()} for row in rows]


class WebDataset:
    """Tar files of .npz rows, which are read one after another: it has no rows by number."""

    def __init__(self, folder: Path, rows: int) -> None:
        import webdataset  # late: not every rival pays for it

        self._sink = webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=64, verbose=0)

    def put(self, first: int, arrays: Mapping[str, Array]) -> None:
        for index in range(len(next(iter(arrays.values())))):
            row = {name: array[index] for name, array in arrays.items()}
            self._sink.write({"__key__": f"{first + index:06}", "npz": row})

    def close(self) -> None:
        self._sink.close()

    @staticmethod
    def read(folder: Path, rows: Sequence[int]) -> list[Row]:
        import webdataset  # late: not every rival pays for it

        urls = [str(path) for path in sorted(folder.glob("*.tar"))]
        samples = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
        return [dict(np.load(io.BytesIO(sample["npz"]))) for sample in samples][: len(rows)]


class LitData:
    """litdata's chunks of 64 MB."""

    def __init__(self, folder: Path, rows: int) -> None:
        from litdata.streaming.writer import BinaryWriter  # late: an optional package

        os.environ.update(DATA_OPTIMIZER_GLOBAL_RANK="0", DATA_OPTIMIZER_NUM_WORKERS="1")
        self._folder, self._writer = folder, BinaryWriter(str(folder), chunk_bytes="64MB")

    def put(self, first: int, arrays: Mapping[str, Array]) -> None:
        for index in range(len(next(iter(arrays.values())))):
            self._writer[first + index] = {name: array[index].copy() for name, array in arrays.items()}

    def close(self) -> None:
        self._writer.done()
        self._writer.merge()

    @staticmethod
    def read(folder: Path, rows: Sequence[int]) -> list[Row]:
        from litdata import StreamingDataset  # late: an optional package

        dataset = StreamingDataset(str(folder))
        return [dict(dataset[row]) for row in rows]


STORES: dict[str, type[Written]] = {
    "torch.save": TorchSave,
    "memmap": Memmap,
    "h5py": Hdf5,
    "litdata": LitData,
    "zarr": ZarrPython,
    "webdataset": WebDataset,
}


def installed() -> list[str]:
    """The ways whose package is there."""
    return [name for name in STORES if name in ("torch.save", "memmap") or find_spec(name) is not None]


def sync_tree(folder: Path) -> None:
    """Returns once every file and folder below is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
