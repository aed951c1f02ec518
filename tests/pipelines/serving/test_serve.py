"""`serve`: pages over HTTP, nothing outside the root, a token where others can reach it, slow clients."""

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from pipelines.__main__ import main
from pipelines.config.serving import ServeConfig
from pipelines.runs.run_lock import LOCK, PATIENCE_S, LockWatch
from pipelines.serving.serve import open_server
from pipelines.serving.served_folder import ServedFolder
from stores.work.holder import Holder, this_process
from tests.pipelines.made_stores import make_store
from tests.pipelines.pages.browser import opened

GOLDEN_RUN = Path(__file__).parents[2] / "golden" / "run-linear" / "run"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    make_store(folder / "root" / "features")
    shutil.copytree(GOLDEN_RUN, folder / "root" / "runs" / "first run")
    shutil.copytree(GOLDEN_RUN, folder / "outside")
    (folder / "root" / "runs" / "linked").symlink_to(folder / "outside")
    inner = Path(shutil.copytree(GOLDEN_RUN, folder / "root" / "runs" / "inner"))
    (folder / "secret.png").write_bytes(b"secret")
    (inner / "confusion.png").symlink_to(folder / "secret.png")
    return folder / "root"


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    yield from served(ServeConfig(root=str(root), port=0))


def served(config: ServeConfig) -> Iterator[str]:
    server, address = open_server(config)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def get(
    address: str, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    url = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", url.port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def test_pages_of_stores_and_runs(address: str, root: Path) -> None:
    assert address.startswith("http://127.0.0.1:") and "token" not in address
    status, index, headers = get(address)
    (store,) = (root / "features").iterdir()
    assert status == 200 and f"/store/features/{store.name}" in index and "/run/runs/first%20run" in index
    assert headers["Cache-Control"] == "no-store"
    status, page, _ = get(address, f"/store/features/{store.name}")
    assert status == 200 and "How to open it" in page
    status, page, headers = get(address, f"/run/{quote('runs/first run')}")
    assert status == 200 and "linear" in page and "Refresh" not in headers
    assert get(address, f"/runs?run={quote('runs/first run')}")[0] == 200
    assert get(address, "/", method="HEAD")[:2] == (200, "")


def test_a_run_that_trains_is_refreshed(address: str, root: Path) -> None:
    folder = root / "runs" / "first run"
    (folder / "run.lock").write_text("{}")
    _, _, headers = get(address, f"/run/{quote('runs/first run')}")
    (folder / "run.lock").unlink()
    assert headers["Refresh"] == "15"


def test_a_lock_whose_holder_is_gone_renews_no_page(tmp_path: Path) -> None:
    """One of this machine at once, one of another when its counter has stood still for long enough."""
    now_s, lock = [0.0], tmp_path / LOCK
    folder = ServedFolder(tmp_path, locks=LockWatch(clock=lambda: now_s[0]))

    def write(holder: Holder) -> None:
        lock.write_text(json.dumps(asdict(holder)))

    assert not folder.is_changing(tmp_path)
    write(this_process())
    now_s[0] = 10 * PATIENCE_S
    assert folder.is_changing(tmp_path)
    write(replace(this_process(), started="1"))  # the number of a process is used again
    assert not folder.is_changing(tmp_path)
    elsewhere = replace(this_process(), host="elsewhere")
    for counter in (1, 2):
        write(replace(elsewhere, counter=counter))
        assert folder.is_changing(tmp_path)
        now_s[0] += PATIENCE_S - 1
        assert folder.is_changing(tmp_path)
    now_s[0] += 2
    assert not folder.is_changing(tmp_path)


@pytest.mark.ci
def test_a_browser_goes_from_the_list_to_a_store_and_a_run(root: Path) -> None:
    """Over HTTP with a token: the cookie carries it to the pages that links lead to."""
    serving = served(ServeConfig(root=str(root), host="0.0.0.0", port=0))
    url = urlsplit(next(serving))
    address = f"http://127.0.0.1:{url.port}/"
    try:
        with opened(f"{address}?{url.query}") as (view, complaints):
            (store,) = (root / "features").iterdir()
            view.get_by_role("link", name=store.name).click()
            # A click returns before the page it leads to has loaded.
            view.wait_for_url("**/store/**")
            assert "How to open it" in view.content() and store.name in view.title()
            view.goto(address)
            view.get_by_role("link", name="first run").click()
            view.wait_for_url("**/run/**")
            assert "linear" in view.content() and "token" not in view.url
            assert complaints == []
    finally:
        next(serving, None)


@pytest.mark.parametrize(
    "path",
    [
        "/run/../outside",
        "/run/..%2f..%2foutside",
        "/run/runs/linked",
        "/run/%2fetc",
        "/run//etc/passwd",
        "/run/runs/inner",
        "/run/a%00b",
        "/store/runs",
        "/runs?run=../outside",
        "/etc/passwd",
        "/run/",
    ],
)
def test_nothing_outside_the_root_is_served(address: str, path: str) -> None:
    status, text, _ = get(address, path)
    assert status == 404 and "secret" not in text and "root:" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_is_read_only(address: str, method: str) -> None:
    assert get(address, "/", method=method)[0] == 501


def test_another_sites_name_for_this_machine_is_refused(address: str) -> None:
    assert get(address, "/", Host="evil.example:80")[0] == 403
    assert get(address, "/", Host="localhost:1")[0] == 200


def test_a_slow_client_stops_no_other(address: str) -> None:
    url = urlsplit(address)
    with socket.create_connection(("127.0.0.1", url.port or 0)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: local")  # and nothing more
        assert get(address)[0] == 200
        assert get(address)[0] == 200


def test_beyond_loopback_a_token_is_asked_for(root: Path) -> None:
    serving = served(ServeConfig(root=str(root), host="0.0.0.0", port=0))
    address = next(serving)
    try:
        token = urlsplit(address).query
        assert token.startswith("token=") and len(token) > 20
        assert get(address)[0] == 403 and get(address, "/?token=wrong")[0] == 403
        status, text, headers = get(address, f"/?{token}")
        assert status == 200 and token.removeprefix("token=") not in text
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert "HttpOnly" in headers["Set-Cookie"]
        assert get(address, "/", Cookie=cookie)[0] == 200
        assert get(address, "/", Cookie="permafrost_token=wrong")[0] == 403
    finally:
        next(serving, None)


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--root", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err
