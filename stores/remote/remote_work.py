"""Claims, attempts and logs of a store in object storage: objects below `work/` and `log/`.

As in stores.work, over requests: a claim is created by a conditional put and rewritten by puts that demand
its last ETag, so that who has lost one does not overwrite that of another. All of it is advice.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from stores.errors import RemoteError
from stores.remote.object_client import client_of
from stores.remote.store_url import StoreUrl
from stores.work.attempts import ATTEMPTS, Attempts
from stores.work.claims import CLAIMS, Claims
from stores.work.folder import LOG, WORK
from stores.work.holder import Holder
from stores.work.log import WriterLog

logger = logging.getLogger(__name__)

_MOST_ATTEMPTS = 1000
_MAX_REASON_BYTES = 1000


class RemoteClaims(Claims):
    """As Claims; those of dead processes elsewhere are found by watching their counters."""

    def __init__(self, root: StoreUrl, **settings: Any) -> None:
        super().__init__(root, **settings)
        self._client, self._prefix = client_of(root.place), f"{root.key}/{WORK}/{CLAIMS}"
        self._etags: dict[str, str] = {}
        """Of the claims that this process holds."""

    def _bytes(self) -> bytes:
        return json.dumps(asdict(self._holder)).encode()

    def take(self, name: str) -> bool:
        if name in self._etags:
            return True
        key = f"{self._prefix}/{name}"
        try:
            while True:
                try:
                    self._etags[name] = self._client.put_new(key, self._bytes())
                    return True
                except FileExistsError:
                    pass
                found = self._read(name)
                if found is None:  # released just now
                    continue
                holder, etag = found
                if not self._is_gone(name, holder):
                    return False
                mine = self._client.put_over(key, self._bytes(), etag)
                if mine is None:  # another process was quicker
                    return False
                self._etags[name] = mine
                who = holder.describe() if holder else "a process that left no record"
                logger.info("shard %s: %s has ended or stopped; this process takes it over", name, who)
                self.on_death(name)
                return True
        except RemoteError as error:
            self._warn(error)
            return True

    def _read(self, name: str) -> tuple[Holder | None, str] | None:
        try:
            found = self._client.read_range(f"{self._prefix}/{name}", 0, 1 << 12)
        except FileNotFoundError:
            return None
        try:
            holder = Holder(**json.loads(bytes(found.data)))
        except (ValueError, TypeError):
            holder = None
        return holder, found.etag or ""

    def beat(self, *, now: bool = False) -> None:
        if not now and self._clock() - self._last_beat < self._beat_s:
            return
        self._last_beat = self._clock()
        self._holder = replace(self._holder, counter=self._holder.counter + 1)
        for name, etag in list(self._etags.items()):
            try:
                mine = self._client.put_over(f"{self._prefix}/{name}", self._bytes(), etag)
            except RemoteError:  # the next one may succeed
                continue
            if mine is None:
                self._etags.pop(name, None)
            else:
                self._etags[name] = mine

    def release(self, name: str) -> None:
        etag = self._etags.pop(name, None)
        if etag is None:
            return
        try:
            found = self._read(name)
            if found is not None and found[1] == etag:
                self._client.delete([f"{self._prefix}/{name}"])
        except RemoteError as error:
            self._warn(error)

    def release_all(self) -> None:
        for name in list(self._etags):
            self.release(name)

    def free_silent(self) -> bool:
        """Frees nothing: whether a counter stands still is seen by who stays to watch it."""
        return False

    def others(self) -> dict[str, Holder | None]:
        found = remote_claims(self._client, self._prefix)
        return {name: holder for name, holder in found.items() if not (holder and holder.token == self.token)}


def remote_claims(client: Any, prefix: str) -> dict[str, Holder | None]:
    """Every claim by shard; None for one that cannot be read."""
    found: dict[str, Holder | None] = {}
    for key, _ in client.listed(prefix):
        try:
            found[key.rpartition("/")[2]] = Holder(**json.loads(client.read(key, limit_bytes=1 << 12)))
        except FileNotFoundError:  # released just now
            continue
        except (ValueError, TypeError):
            found[key.rpartition("/")[2]] = None
    return found


class RemoteAttempts(Attempts):
    """As Attempts."""

    def __init__(self, root: StoreUrl) -> None:
        self._client, self._prefix = client_of(root.place), f"{root.key}/{WORK}/{ATTEMPTS}"
        super().__init__(None)
        self._known = {key.rpartition("/")[2].rpartition(".")[0] for key in self._keys()}

    def _keys(self) -> list[str]:
        return [key for key, _ in self._client.listed(self._prefix)]

    def _read(self, name: str) -> list[str]:
        found = list(self._in_memory.get(name, ()))
        for key in sorted(self._keys(), key=lambda key: (len(key), key)):
            if key.rpartition("/")[2].rpartition(".")[0] == name:
                found.append(self._client.read(key, limit_bytes=1 << 12).decode(errors="replace"))
        return found

    def _create(self, name: str, reason: str) -> Any:
        for number in range(1, _MOST_ATTEMPTS):
            key = f"{self._prefix}/{name}.{number}"
            try:
                self._client.put_new(key, reason.encode()[:_MAX_REASON_BYTES])
            except FileExistsError:
                continue
            except RemoteError:  # counting is no reason to stop
                return None
            return _Deletable(self._client, key)
        return None


class _Deletable:
    """An object that is deleted as a file is."""

    def __init__(self, client: Any, key: str) -> None:
        self._client, self._key = client, key

    def unlink(self) -> None:
        self._client.delete([self._key])


class RemoteLog(WriterLog):
    """As WriterLog: the object is written anew with each event, since nothing is appended to one."""

    def __init__(self, root: StoreUrl) -> None:
        super().__init__(root)
        self._client, self._key = client_of(root.place), f"{root.key}/{LOG}/{uuid.uuid4().hex}.jsonl"
        self._lines: list[str] = []

    def write(self, event: str, **fields: object) -> None:
        self._lines.append(json.dumps({"time": self._clock(), "event": event, **fields}, default=str) + "\n")
        try:
            self._client.put(self._key, "".join(self._lines).encode())
        except RemoteError as error:
            if not self._failed:
                logger.warning("%s cannot be written, the extraction continues: %s", self._key, error)
            self._failed = True


def claimed_at(root: StoreUrl) -> Mapping[str, Holder | None]:
    """Every claim of a store by shard."""
    return remote_claims(client_of(root.place), f"{root.key}/{WORK}/{CLAIMS}")
