"""Errors of requests in words of our own: those of servers and of obstore may quote keys."""

from __future__ import annotations

import re
from typing import Any

from stores.errors import ChangedObject, RemoteError, StoreError

TRIES = 4
"""How often what arrived incomplete is asked for."""
TIMEOUT_S = 120
_MACHINE_ROLES = "//169.254."
"""Address at which machines in a cloud ask for the keys of their role."""
_STATUS = re.compile(r"non-2xx status code: (\d{3})")


class Incomplete(Exception):
    """An answer of other bytes than were asked for."""


def require_all(found: int, start: int, stop: int, object_bytes: int) -> None:
    """Raises Incomplete unless so many bytes are the range from `start` to `stop` or the object's end."""
    expected = min(stop, object_bytes) - start
    if found != expected:
        raise Incomplete(f"{found} of {expected} bytes from {start} arrived")


def error_of(exceptions: Any, where: str, error: Exception) -> StoreError:
    """The error to raise, without the server's text.

    Args:
        exceptions: the module of obstore's.
        where: the object.
    """
    if isinstance(error, exceptions.PreconditionError):
        return ChangedObject(f"{where} was replaced while it was read (another ETag); open it again")
    if isinstance(error, exceptions.NotSupportedError) and "ange" in str(error):
        return RemoteError(
            f"{where}: the server answers a request for a range with the whole file, so rows cannot be "
            "read from it; `pull` the store, or serve it by a server with ranges"
        )
    if isinstance(error, Incomplete):
        return RemoteError(f"{where}: {error}, {TRIES} times; the server or a proxy cuts answers off")
    if _MACHINE_ROLES in str(error):  # the last place where obstore looks for a key
        return RemoteError(f"{where}: {reason('credential')}")
    found = _STATUS.search(str(error))
    status = int(found[1]) if found else None
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return RemoteError(
            f"{where}: access refused (HTTP {status or 403}); pass credentials through the environment "
            "(docs/remote.md)",
            status=status or 403,
        )
    if status is not None:
        retried = " after retries" if status == 429 or status >= 500 else ""
        return RemoteError(f"{where}: the server answered HTTP {status}{retried}", status=status)
    return RemoteError(f"{where}: {reason(str(error))}")


def reason(text: str) -> str:
    """What is known of an error without a status, in words of our own."""
    if "Account must be specified" in text:
        return "AZURE_STORAGE_ACCOUNT_NAME is not set (docs/remote.md)"
    if "service account" in text or "ReadPem" in text or "DecodeCredentials" in text:
        return "GOOGLE_APPLICATION_CREDENTIALS does not name a service account's file with its key"
    if "Requested" in text or "UnexpectedRange" in text or "ContentRange" in text:
        return "the server returned another range than was asked for"
    if "body" in text or "decod" in text:
        return f"the answer was cut off, {TRIES} times"
    if "onnection refused" in text or "ConnectError" in text or "kind: Connect" in text or "dns" in text:
        return "no connection to the server"
    if "imed out" in text or "TimedOut" in text or "kind: Timeout" in text:
        return f"no answer within {TIMEOUT_S} s"
    if "redential" in text or "metadata" in text:
        return "no credentials were found in the environment (docs/remote.md)"
    return "the request failed"
