"""What every registered codec promises; a new codec needs no test code.

Two codecs of another package are among them: families with a number in their names, without device halves,
one of them fitted to data.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from extract.codecs.compiled import coded
from extract.codecs.devices.contract import DeviceCodec
from extract.codecs.on_device import device_codec, has_device_half
from extract.codecs.through_numpy import ThroughNumpy
from pipelines.feed.joined_stores import JoinedStores
from pipelines.feed.store_feed import StoreFeed
from pipelines.tasks import task_of
from stores.checks.verify import gc_orphans, verify_store
from stores.codecs import codec, codec_names, needs_state
from stores.codecs.contract import Codec, FittedCodec, state_sha256, states_sha256
from stores.errors import CodecError, FormatError, IdentityError, IntegrityError, PlanError
from stores.reading.reader import open_store
from stores.writing.writer import StoreWriter
from tests.contracts.installed import installed, write_package
from tests.contracts.toy_codecs import ENTRY_POINTS, MODULES
from tests.faults.faulty_files import FaultyFiles, Killed, kills
from tests.faults.interleaving import SteppedFiles, Turns, switch_once
from tests.faults.made_stores import NEW_LAYOUT, MadeRows, extract, small_plan
from tests.faults.outcomes import assert_reads_back
from tests.pipelines.made_stores import make_store

SHIPPED = ("int4", *codec_names())
TOYS = ("fit2", "steps10")
SHAPES = [(3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 4, 5), (3, 4, 64), (1, 1, 33)]
MOST_UNEQUAL = 1e-4
"""Share of a fitted codec's codes in which two devices may differ, by 1: products of matrices are rounded."""

every_codec = pytest.mark.parametrize("name", [*SHIPPED, *TOYS])


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_package(tmp_path_factory.mktemp("toys"), "toy-codecs", MODULES, ENTRY_POINTS)
    with installed(folder):
        yield folder


def features(shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.float32]:
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def ready(name: str, channels: int) -> tuple[Codec, DeviceCodec]:
    """Both halves, fitted where the codec needs it."""
    made, on_device = codec(name), device_codec(name)
    if isinstance(made, FittedCodec):
        state = made.fit(features((8, 6, 7, channels), seed=1))
        return made.with_state(state), on_device.with_state(state)  # type: ignore[attr-defined]
    return made, on_device


def test_every_name_is_listed() -> None:
    assert set(codec_names()) == {*SHIPPED, *TOYS} - {"int4"}


@every_codec
@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_are_those_promised(name: str, shape: tuple[int, ...]) -> None:
    made, x = ready(name, shape[-1])[0], features(shape)
    encoded, parts = made.encode(x), made.parts(shape[-1])
    assert next(iter(parts)) == "q" and list(encoded) == list(parts)
    for kind, part in parts.items():
        cells = shape[-3:-1] if part.per_cell else ()
        assert encoded[kind].shape == (*shape[:-3], *cells, part.width)
        assert encoded[kind].dtype == part.dtype
    decoded = made.decode(encoded)
    assert decoded.dtype == np.float32 and decoded.shape == shape
    made.check(encoded)
    if np.prod(shape[:-1]) > 1:
        figures = made.error_figures(x)
        assert 0 <= figures["median"] <= figures["worst"] < 0.25, "a quarter of a channel's deviation"
    for index, alone in enumerate([made.encode(row) for row in x] if len(shape) > 3 else []):
        assert all(np.array_equal(alone[kind], encoded[kind][index]) for kind in encoded), "rows stand alone"


@every_codec
def test_cells_are_decoded_each_by_itself(name: str) -> None:
    made = ready(name, 40)[0]
    encoded, parts = made.encode(features((2, 5, 6, 40))), made.parts(40)
    some = {kind: a[:, 2:3, 4:5] if parts[kind].per_cell else a for kind, a in encoded.items()}
    np.testing.assert_array_equal(made.decode(some), made.decode(encoded)[:, 2:3, 4:5])


@every_codec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_features_are_refused(name: str, bad: float) -> None:
    x = features((3, 4, 5))
    x[1, 2, 3] = bad
    with pytest.raises(CodecError, match="1 of 60"):
        ready(name, 5)[0].encode(x)


@every_codec
def test_other_types_are_refused(name: str) -> None:
    with pytest.raises(CodecError, match="float64"):
        ready(name, 2)[0].encode(np.zeros((2, 2, 2)))
    with pytest.raises(CodecError, match="2 axes"):
        ready(name, 2)[0].encode(np.zeros((2, 2), np.float32))


@every_codec
def test_all_zero_features_are_legal(name: str) -> None:
    made = ready(name, 4)[0]
    encoded = made.encode(np.zeros((2, 3, 4), np.float32))
    made.check(encoded)
    assert np.abs(made.decode(encoded)).max() < 0.3, "a tenth of the deviation it is fitted to"


@every_codec
def test_the_fill_of_absent_chunks_is_no_code(name: str) -> None:
    made = ready(name, 5)[0]
    parts = made.parts(5)
    for kind in parts:
        encoded = made.encode(features((3, 4, 5)))
        encoded[kind].flat[0] = parts[kind].fill
        with pytest.raises(CodecError):
            made.check(encoded)


@every_codec
@pytest.mark.parametrize("shape", [(3, 6, 7, 45), (2, 3, 6, 7, 32)])
def test_both_halves_agree(name: str, shape: tuple[int, ...]) -> None:
    """The bytes of what is encoded, and the decoded values, of features small and large."""
    (made, on_device), x = ready(name, shape[-1]), features(shape)
    if not isinstance(made, FittedCodec):  # which holds what is like its samples
        x *= 10.0 ** np.random.default_rng(2).uniform(-3, 3, shape[-1]).astype(np.float32)
    expected, found = made.encode(x), on_device.encode(torch.from_numpy(x))
    assert list(found) == list(expected)
    for kind, array in expected.items():
        ours = found[kind].numpy()
        assert ours.dtype == array.dtype and ours.shape == array.shape
        is_first = made.parts(shape[-1])[kind].channel_first
        assert (found[kind].movedim(-1, -3) if is_first else found[kind]).is_contiguous(), "as it is stored"
        if isinstance(made, FittedCodec) and array.dtype.kind in "iu":
            unequal = ours.astype(int) != array
            assert unequal.mean() <= MOST_UNEQUAL and np.abs(ours.astype(int) - array).max() <= 1
        else:
            assert ours.tobytes() == array.tobytes(), kind
    parts = {kind: torch.from_numpy(array) for kind, array in expected.items()}
    decoded = on_device.decode(parts)
    assert decoded.dtype == torch.float32
    assert not any(np.shares_memory(decoded.numpy(), array) for array in expected.values())
    assert decoded.numpy().tobytes() == np.ascontiguousarray(made.decode(expected)).tobytes()


@every_codec
def test_rows_that_cannot_be_held_are_found_and_disturb_no_other(name: str) -> None:
    (made, on_device), x = ready(name, 5), torch.from_numpy(features((4, 3, 4, 5)))
    x[1, 0, 0, 0], x[2, 1, 1, 2] = torch.nan, torch.inf
    are_finite = torch.tensor([True, False, False, True])
    assert on_device.holds(x, are_finite).tolist() == [True, False, False, True]
    found = on_device.encode(x)
    for row in (0, 3):
        for kind, array in made.encode(x[row].numpy()).items():
            assert found[kind][row].numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_codecs_have_both_halves(name: str) -> None:
    assert has_device_half(name) and not isinstance(device_codec(name), ThroughNumpy)


@pytest.mark.parametrize("name", TOYS)
def test_without_a_device_half_a_codec_runs_through_numpy(name: str) -> None:
    assert not has_device_half(name) and isinstance(device_codec(name), ThroughNumpy)


def test_rows_beyond_a_codecs_range_through_numpy() -> None:
    x = torch.ones(2, 2, 2, 3)
    x[1] = 1e31
    parts, finite, holds = coded("steps10", x)
    assert finite.tolist() == [True, True] and holds.tolist() == [True, False]
    assert parts["gain"].tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("name", [*SHIPPED, *TOYS])
def test_a_store_gives_what_the_codec_decodes_to_readers_and_to_training(name: str, tmp_path: Path) -> None:
    """By the codec's name: arrays called otherwise than those of int8 are no less its own."""
    levels = ("p4", "p5")
    path = make_store(tmp_path, codec_name=name, records=3, views=1, levels=levels)
    with open_store(path) as store:
        expected = store.read_features([0, 1, 2])
        encoded = store.read_encoded([0, 1, 2])
        for level in levels:
            decoded = np.moveaxis(store.plan.level_codec(level).decode(encoded[level]), -1, 1)
            np.testing.assert_array_equal(expected[level], decoded)
            assert np.abs(decoded).max() > 2, "the labels are in the features"
        feed = StoreFeed(
            JoinedStores([store]),
            iter([np.array([0, 1, 2]), np.array([2, 0, 1])]),
            batch_size=3,
            levels=levels,
            task=task_of("segmentation"),
            device=torch.device("cpu"),
        )
        first, second = next(feed), next(feed)
        feed.close()
    for level in levels:
        for batch, order in ((first, [0, 1, 2]), (second, [2, 0, 1])):
            np.testing.assert_array_equal(batch.features[level].numpy(), expected[level][order])


class TestFamilies:
    """Names with a number."""

    def test_the_number_is_the_familys_to_judge(self) -> None:
        assert codec("steps12").steps == 4096  # type: ignore[attr-defined]
        with pytest.raises(CodecError, match="steps15: expected 4 to 14"):
            codec("steps15")

    @pytest.mark.parametrize("name", ["steps", "steps04", "steps-4", "int88", "steps4x", "q05", "os2", ""])
    def test_other_names_are_unknown(self, name: str) -> None:
        with pytest.raises(CodecError, match=r"unknown codec .*; available: .*fit2, float16, int8"):
            codec(name)


class TestFitted:
    """Codecs with a state: fitted by whoever creates the store, bound by a digest, adopted by all others."""

    def test_the_state_decides_and_is_bound_by_its_digest(self) -> None:
        made = codec("fit2")
        assert isinstance(made, FittedCodec) and needs_state(made)
        x = features((16, 8, 8, 12))
        state, other = made.fit(x[:8]), made.fit(x[8:])
        fitted = made.with_state(state)
        assert fitted.error_figures(x)["worst"] == pytest.approx(0.02, rel=0.2)
        assert state_sha256(state) == state_sha256(dict(reversed(state.items()))) != state_sha256(other)
        encoded = fitted.encode(x)
        assert not np.array_equal(made.with_state(other).decode(encoded), fitted.decode(encoded))

    @pytest.mark.parametrize("use", ["encode", "decode", "check"])
    def test_without_a_state_it_does_nothing(self, use: str) -> None:
        x: Any = features((3, 4, 5))
        with pytest.raises(CodecError, match="fit2 has to be fitted first"):
            getattr(codec("fit2"), use)(x if use == "encode" else {"q": x.astype(np.int16)})

    def test_a_state_of_another_codec_is_refused(self) -> None:
        with pytest.raises(CodecError, match="not a state of this codec"):
            device_codec("fit2").with_state({"mean": np.zeros(3, np.float32)})  # type: ignore[attr-defined]
        with pytest.raises(CodecError, match="no state"):
            device_codec("steps10").with_state({})  # type: ignore[attr-defined]

    def test_no_store_is_made_before_it_is_fitted(self, tmp_path: Path) -> None:
        plan = small_plan("fit2")
        with pytest.raises(PlanError, match="codec fit2 has to be fitted to sample rows before"):
            StoreWriter.open_or_create(tmp_path, plan)
        with pytest.raises(CodecError, match="has to be fitted"):
            plan.level_codec("p5")
        with pytest.raises(PlanError, match=r"the state of \['p4'\], the levels are p5"):
            plan.with_state({"p4": fitted_state(3)})
        with pytest.raises(PlanError, match="not a state of this codec"):
            plan.with_state({"p5": {"mean": np.zeros(3, np.float32)}})
        with pytest.raises(PlanError, match="codec int8 with a state"):
            small_plan("int8").with_state({"p5": fitted_state(3)})

    def test_the_first_writers_state_is_everybodys(self, tmp_path: Path) -> None:
        first = small_plan("fit2", **NEW_LAYOUT).with_state({"p5": fitted_state(3)})
        other = small_plan("fit2", **NEW_LAYOUT).with_state({"p5": fitted_state(3, seed=5)})
        unfitted = small_plan("fit2", **NEW_LAYOUT)
        assert first.folder_name == other.folder_name, "what was fitted is no part of the identity"
        rows = MadeRows(StoreWriter.open_or_create(tmp_path, first).plan)
        for plan in (other, unfitted):
            adopted = StoreWriter.open_or_create(tmp_path, plan).plan
            np.testing.assert_array_equal(adopted.codec_state["p5"]["mean"], fitted_state(3)["mean"])
        extract(tmp_path, rows)
        path = tmp_path / first.folder_name
        assert_reads_back(path, rows)
        assert verify_store(path, full=True).ok
        with open_store(path) as store:
            group = store.zarr()["codec"]
            (digest,) = group.group_keys()
            np.testing.assert_array_equal(group[digest]["p5"]["mean"][:], fitted_state(3)["mean"])
        table = next((path / "codec").rglob("mean/c.0"))
        table.write_bytes(bytes(len(table.read_bytes())))
        with pytest.raises(IntegrityError, match="the fitted arrays of the codec were changed"):
            open_store(path)

    @pytest.mark.parametrize("step", [17, pytest.param(7, marks=pytest.mark.ci)])
    def test_two_creators_leave_one_state(self, tmp_path: Path, step: int) -> None:
        """At each operation of one creator the other does all its work."""
        plans = [small_plan("fit2").with_state({"p5": fitted_state(3, seed)}) for seed in (0, 5)]
        counted = FaultyFiles()
        StoreWriter.open_or_create(tmp_path / "alone", plans[0], files=counted)
        for at in range(0, len(counted.names), step):
            root = tmp_path / str(at)
            root.mkdir()
            turns = Turns(2)
            jobs = [
                partial(StoreWriter.open_or_create, root, plan, files=SteppedFiles(turns, i))
                for i, plan in enumerate(plans)
            ]
            first, second = turns.run(jobs, switch_once(0, at))
            assert states_sha256(first.plan.codec_state) == states_sha256(second.plan.codec_state)
            assert len(list((first.path / "codec").iterdir())) == 2, "one state and zarr.json"
            extract(root, MadeRows(first.plan))
            assert verify_store(first.path, full=True).ok

    def test_what_a_killed_creator_had_fitted_is_removed(self, tmp_path: Path) -> None:
        plans = [small_plan("fit2").with_state({"p5": fitted_state(3, seed)}) for seed in (0, 5)]
        counted = FaultyFiles()
        StoreWriter.open_or_create(tmp_path / "alone", plans[0], files=counted)
        before_plan = counted.names.index("link")
        root = tmp_path / "killed"
        root.mkdir()
        with pytest.raises(Killed):
            StoreWriter.open_or_create(root, plans[0], files=FaultyFiles({before_plan - 1: kills}))
        extract(root, MadeRows(plans[1]))
        path = root / plans[1].folder_name
        assert len(list((path / "codec").iterdir())) == 2, "one state and zarr.json"
        assert_reads_back(path, MadeRows(plans[1]))
        gc_orphans(path, delete=True)
        assert verify_store(path, full=True).ok

    def test_stores_of_different_states_are_not_joined(self, tmp_path: Path) -> None:
        paths = [make_store(tmp_path / str(seed), codec_name="fit2", records=2, seed=seed) for seed in (0, 1)]
        stores = [open_store(path) for path in paths]
        with pytest.raises(IdentityError, match="the fitted state of the codec"):
            JoinedStores(stores)


def fitted_state(channels: int, seed: int = 0) -> dict[str, Any]:
    made = codec("fit2")
    assert isinstance(made, FittedCodec)
    return dict(made.fit(features((8, 6, 7, channels), seed)))


def test_a_store_of_an_absent_codec_names_the_package_it_came_from(tmp_path: Path) -> None:
    with open_store(make_store(tmp_path / "first", codec_name="steps10", records=2, views=1)) as store:
        plan = store.plan
    recorded = replace(
        plan, identity={**plan.identity, "codec": {"name": "steps10", "package": "toy-codecs"}}
    )
    assert recorded.codec_package == "toy-codecs" and plan.codec_package is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stores.plugins.entry_points", lambda group: ())
        with installed(tmp_path):
            advice = (
                r"unknown codec 'steps10'; available: float16, int8, q2, q5; it came from package toy-codecs"
            )
            with pytest.raises(PlanError, match=advice):
                replace(recorded)
            with pytest.raises(
                FormatError, match=r"unknown codec 'steps10'; available: float16, int8, q2, q5$"
            ):
                open_store(store.path)
