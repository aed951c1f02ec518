"""A store on a disk, the same served over HTTP, and S3 servers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stores.format.plan import Bin
from stores.remote import object_client
from tests.faults.made_stores import NEW_LAYOUT, P4, P5, MadeRows, extract, small_plan
from tests.stores.remote.s3_servers import AZURITE, bucket_of, environment, s3_server
from tests.stores.remote.static_server import StaticServer, serving

BINS = (Bin(height_px=64, width_px=64, rows=24, shard_rows=4),)


@pytest.fixture(scope="package")
def rows() -> MadeRows:
    plan = small_plan(bins=BINS, levels=(P4, P5), pixels=True, **NEW_LAYOUT)
    return MadeRows(plan, skipped=frozenset({(0, 5)}))


@pytest.fixture(scope="package")
def local(rows: MadeRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    extract(root, rows)
    return root / rows.plan.folder_name


@pytest.fixture
def server(local: Path) -> Iterator[StaticServer]:
    with serving(local.parent) as state:
        yield state


@pytest.fixture
def url(server: StaticServer, local: Path) -> str:
    return f"{server.url}/{local.name}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty block cache, and no pauses before retries."""
    monkeypatch.setenv("PERMAFROST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(object_client, "FIRST_PAUSE_S", 0.001)
    return tmp_path / "cache"


@pytest.fixture(scope="module", params=["ministack", "moto", AZURITE])
def service(request: pytest.FixtureRequest) -> str:
    """The name of each server on loopback in turn."""
    if request.param != AZURITE:
        pytest.importorskip(request.param)
    elif shutil.which(AZURITE) is None:
        pytest.skip(f"{AZURITE} is not on PATH")
    return str(request.param)


@pytest.fixture(scope="module")
def endpoint(service: str) -> Iterator[str]:
    with s3_server(service) as found:
        yield found


@pytest.fixture(scope="module")
def bucket(service: str) -> str:
    """Its URL, such as s3://bucket."""
    return bucket_of(service)


@pytest.fixture
def credentials(endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the server, in the environment."""
    for name, value in environment(endpoint, bucket).items():
        monkeypatch.setenv(name, value)
