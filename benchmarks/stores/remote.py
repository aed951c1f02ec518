"""Reading a store over HTTP on loopback, beside obstore and the local disk.

The server is a process of its own that sends files from the page cache, with a pause before each answer
where one is asked for; client and server share the cores. Ratios of one run count, not single speeds.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import obstore

from benchmarks.stores.swinv2_b_store import plan_of, random_rows, write_store
from stores import open_store
from stores.reading.reader import Store

LEVELS = ("p4", "p5")
BATCH, AHEAD = 16, 4


def serve(folder: str, pause_s: float) -> None:
    """Serves files with ranges until it is ended; prints its port first."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            time.sleep(pause_s)
            path = f"{folder}{self.path}"
            if not os.path.isfile(path):
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size, asked = os.path.getsize(path), self.headers.get("Range")
            first, last = map(int, re.findall(r"\d+", asked)) if asked else (0, size - 1)
            last = min(last, size - 1)
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("ETag", f'"{size}"')
            self.end_headers()
            self.wfile.flush()
            if with_body:
                with open(path, "rb") as file:
                    at, left = first, last - first + 1
                    while left:
                        sent = os.sendfile(self.connection.fileno(), file.fileno(), at, left)
                        at, left = at + sent, left - sent

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


def timed(read: Callable[[], int]) -> float:
    """MB/s."""
    began = time.perf_counter()
    return read() / 1e6 / (time.perf_counter() - began)


def batches(store: Store, seed: int) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(len(store)).tolist()
    return [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]


def read_all(store: Store, seed: int, *, ahead: int = 0) -> int:
    """Every batch once in random order, as the feed of a training reads; returns the bytes."""
    out, total, waiting = store.buffers(BATCH, levels=LEVELS), 0, deque[list[int]]()
    for rows in [*batches(store, seed), *[[]] * ahead]:
        if rows:
            store.prefetch(rows, LEVELS)
            waiting.append(rows)
        if waiting and (not rows or len(waiting) > ahead):
            found = store.read_encoded(waiting.popleft(), LEVELS, out)
            total += sum(array.nbytes for kinds in found.values() for array in kinds.values())
    return total


def read_ranges(store: Store, url: str, seed: int) -> int:
    """The same code ranges by obstore alone, a call a shard and level."""
    client = obstore.store.from_url(url, client_options={"allow_http": True})
    shard_rows, total = store.plan.bins[0].shard_rows, 0
    for rows in batches(store, seed):
        for level in LEVELS:
            size = int(np.prod(store.buffers(1, levels=(level,))[level]["q"].shape)) + 4
            for shard in sorted({row // shard_rows for row in rows}):
                places = [row % shard_rows * size for row in rows if row // shard_rows == shard]
                path = f"bins/512x512/levels/{level}/q/c.{shard}.0.0.0"
                found = obstore.get_ranges(
                    client, path, starts=places, lengths=[size] * len(places), coalesce=0
                )
                total += sum(len(data) for data in found)
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=1.0, help="size of the store with all levels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "PAUSE_S"))
    given = parser.parse_args()
    if given.serve:
        serve(given.serve[0], float(given.serve[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = write_store(Path(folder), plan_of(given.gb), random_rows())
        for number in range(given.repeats):
            run(path, number, folder)


def run(path: Path, number: int, folder: str) -> None:
    """One round of all figures, printed."""
    os.environ["PERMAFROST_CACHE"] = f"{folder}/cache-{number}"
    found: dict[str, float] = {}
    for name, pause in (("", "0"), (", 30 ms a request", "0.03")):
        command = [sys.executable, "-m", "benchmarks.stores.remote", "--serve", str(path.parent), pause]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/{path.name}"
        try:
            if not name:
                os.environ["PERMAFROST_CACHE_GB"] = "0"
                with open_store(url) as store:
                    read_all(store, 0)  # opens every shard
                    found["rows, nothing kept"] = timed(lambda: read_all(store, 1))
                    found["obstore.get_ranges"] = timed(partial(read_ranges, store, url, 1))
            os.environ["PERMAFROST_CACHE_GB"] = "50"
            os.environ["PERMAFROST_CACHE"] = f"{folder}/cache-{number}-{pause}"
            with open_store(url) as store:
                found[f"first epoch{name}"] = timed(lambda: read_all(store, 2, ahead=AHEAD))
                if not name:
                    read_all(store, 3)
                    found["filled cache"] = timed(lambda: read_all(store, 4))
        finally:
            server.terminate()
            server.wait()
    with open_store(path) as store:
        read_all(store, 3)
        found["local store"] = timed(lambda: read_all(store, 4))
    for name, rate in found.items():
        print(f"{name}: {rate:.0f} MB/s")
    print(f"rows / get_ranges: {found['rows, nothing kept'] / found['obstore.get_ranges']:.2f} (0.7 wanted)")
    print(
        f"filled cache / local: {found['filled cache'] / found['local store']:.2f} (0.9 wanted)", flush=True
    )


if __name__ == "__main__":
    main()
