"""URL of a store or of a folder of stores, as a path: s3://, gs://, az:// and, to read only, https://.

It is joined, split and compared as any path, and asked whether it exists. What would use it as a file of
this machine raises NotOnDisk, since a relative folder `s3:` could be read or made instead.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Generator
from pathlib import Path, PosixPath
from typing import Any, Self

from stores.errors import RemoteError, StoreError

WRITABLE_SCHEMES = ("s3", "gs", "az")
SCHEMES = (*WRITABLE_SCHEMES, "https", "http")
CATALOG = "catalog.json"
"""Lists the stores of a folder for those who cannot list it."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(/.*)?", re.DOTALL)


class NotOnDisk(StoreError, TypeError):
    """A URL was used where a file or folder of this machine is needed."""


class BadUrl(StoreError, ValueError):
    """A URL that no store can be at."""


class StoreUrl(PosixPath):
    """The URL of a store, of a folder of stores, or of a file of one; see the module.

    Made by `store_path`, which refuses what is none.
    """

    def __str__(self) -> str:
        return re.sub("^([a-z0-9]+):/", r"\1://", super().__str__())

    def __repr__(self) -> str:
        return f"StoreUrl({str(self)!r})"

    def __fspath__(self) -> str:
        raise NotOnDisk(f"{self} is not a file or folder of this machine; `pull` copies a store to one")

    @property
    def scheme(self) -> str:
        return self.parts[0].removesuffix(":")

    @property
    def place(self) -> str:
        """Scheme and bucket, or scheme and host."""
        return f"{self.scheme}://{self.parts[1]}"

    @property
    def key(self) -> str:
        """Of the object in its bucket, or the path on its host; empty for the root."""
        return "/".join(self.parts[2:])

    @property
    def is_writable(self) -> bool:
        """Whether stores can be written there."""
        return self.scheme in WRITABLE_SCHEMES

    @property
    def parent(self) -> Self:
        """That of a bucket or host is itself."""
        return super().parent if len(self.parts) > 2 else self

    def absolute(self) -> Self:
        return self

    def resolve(self, strict: bool = False) -> Self:
        return self

    def expanduser(self) -> Self:
        return self

    def exists(self, **_: Any) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self, **_: Any) -> bool:
        return _client(self).size(self.key) is not None

    def is_dir(self, **_: Any) -> bool:
        """Whether anything is below it. Of a web server, which lists nothing, whether it holds a store or a
        catalog."""
        if self.is_writable:
            return next(iter(_client(self).listed(self.key)), None) is not None
        names = ("MANIFEST.json", "plan.json", CATALOG)
        return any((self / name).is_file() for name in names)

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Generator[Self, None, None]:
        """What is directly below it, by name.

        Raises RemoteError for a web server, which lists nothing: see stores.remote.catalog_file.
        """
        names = _client(self).children(self.key) if self.is_writable else catalog_names(self)
        yield from (self / name for name in names)

    def glob(self, pattern: str, **_: Any) -> Generator[Self, None, None]:
        """The files of a pattern: `*/PATH`, in the folders directly below, or `*.ENDING`, directly below."""
        if re.fullmatch(r"\*\.\w+", pattern):
            yield from (child for child in self.iterdir() if child.name.endswith(pattern[1:]))
            return
        folder, _slash, name = pattern.partition("/")
        if folder != "*" or not name or "*" in name:
            raise NotOnDisk(f"{self}: {pattern} is not looked for at a URL")
        yield from (child / name for child in self.iterdir() if (child / name).is_file())

    def read_bytes(self) -> bytes:
        data: bytes = _client(self).read(self.key)
        return data

    def read_text(self, *_: Any, **__: Any) -> str:
        return self.read_bytes().decode()

    def open(self, mode: str = "r", *_: Any, **__: Any) -> io.BytesIO:  # type: ignore[override]
        """The whole object, for `mode` rb."""
        if mode != "rb":
            raise NotOnDisk(f"{self} is not opened in the mode {mode!r}")
        return io.BytesIO(self.read_bytes())


def catalog_names(folder: StoreUrl) -> list[str]:
    """Names of the stores in the catalog.json of a folder. Raises RemoteError where there is none."""
    try:
        content = json.loads((folder / CATALOG).read_bytes())
        names = [str(store["folder"]) for store in content["stores"]]
    except FileNotFoundError:
        raise RemoteError(
            f"{folder} holds no {CATALOG}, and a web server lists nothing: pass --store with the URL of a "
            "store, or write one where the folder can be written (`catalog --write`)"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RemoteError(f"{folder / CATALOG} is not a catalog of stores") from None
    return sorted(name for name in names if "/" not in name and name not in ("", ".", ".."))


def _client(url: StoreUrl) -> Any:
    # Late: a URL is parsed with the command line, which needs no client.
    from stores.remote.object_client import client_of

    return client_of(url.place)


def store_path(text: str | Path) -> Path:
    """A path on this machine, or the URL of a store or of a folder of stores.

    Raises BadUrl for a URL of another scheme, without bucket or host, or with credentials in it, and for a
    repository of the Hugging Face hub (hf:NAME).

    >>> store_path("s3://bucket/features") / "plan.json"
    StoreUrl('s3://bucket/features/plan.json')
    >>> store_path("features").name
    'features'
    """
    if isinstance(text, Path):
        return text
    if text.lower().startswith("hf:"):
        name = text[len("hf:") :].lstrip("/") or "NAME/REPOSITORY"
        raise BadUrl(
            f"{text}: stores are not read or written on the Hugging Face hub itself: `hf download {name} "
            f"--repo-type dataset --local-dir FOLDER` copies one to this machine, and `hf upload {name} "
            "FOLDER --repo-type dataset` publishes one"
        )
    url = _URL.fullmatch(text)
    if url is None:
        return Path(text)
    scheme, place, key = url[1].lower(), url[2], url[3] or ""
    if scheme not in SCHEMES:
        raise BadUrl(f"{scheme}:// is not supported; stores are read and written at s3://, gs:// and az://, "
                     "and read at https://")  # fmt: skip
    if "@" in place or "?" in key or "#" in key or "?" in place:
        raise BadUrl(
            f"a {scheme}:// URL with a user, a password or a query in it, which may be secret: URLs are "
            "printed and recorded; pass credentials through the environment (docs/remote.md)"
        )
    if not place:
        raise BadUrl(f"{text}: expected {scheme}://{'bucket' if scheme in WRITABLE_SCHEMES else 'host'}/...")
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadUrl(f"{text}: a URL with '..'")
    return StoreUrl("/".join([f"{scheme}:", place, *parts]))
