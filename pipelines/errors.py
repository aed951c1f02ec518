"""Exit codes of the verbs, and the code of each error."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from stores.errors import CodecError, IdentityError, IntegrityError, SpaceError

DONE, WORK_FAILED, USAGE, IDENTITY, INTEGRITY, SPACE = range(6)
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class UsageError(ValueError):
    """A request that cannot be carried out; says what was found, what was expected and what to do."""


class WorkFailed(RuntimeError):
    """A valid request whose work failed.

    Args:
        summary: of what was done before, for `--json`.
    """

    def __init__(self, message: str, summary: Mapping[str, Any] | None = None) -> None:
        self.summary = dict(summary or {})
        super().__init__(message)


class Interrupted(KeyboardInterrupt):
    """Stopped by the user; carries the command that continues, where it differs from the stopped one."""

    def __init__(self, command: str) -> None:
        self.command = command
        super().__init__(command)


_RULES: tuple[tuple[int, Callable[[BaseException], bool]], ...] = (
    (INTERRUPTED, lambda e: isinstance(e, KeyboardInterrupt)),
    (SPACE, lambda e: isinstance(e, SpaceError) or getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT)),
    (IDENTITY, lambda e: isinstance(e, IdentityError)),
    (INTEGRITY, lambda e: isinstance(e, IntegrityError)),
    (
        WORK_FAILED,
        lambda e: isinstance(e, CodecError),
    ),  # a ValueError, caused by the features and not by the user
    # Every other refusal of a name, a path or a combination is a ValueError or one of these: own errors
    # inherit the builtin a caller expects.
    (USAGE, lambda e: isinstance(e, ValueError | FileNotFoundError | NotADirectoryError | IsADirectoryError)),
    (USAGE, lambda e: isinstance(e, PermissionError | FileExistsError)),
    (USAGE, lambda e: type(e).__name__ in ("WeightsUnavailable", "LevelMissing")),
)


def exit_code(error: BaseException) -> int:
    """The code for `error`; 1 for everything not caused by the user, the store or the disk."""
    return next((code for code, holds in _RULES if holds(error)), WORK_FAILED)


def is_foreseen(error: BaseException) -> bool:
    """Whether the message of `error` was written for the user; any other error is a bug."""
    return exit_code(error) != WORK_FAILED or isinstance(
        error, WorkFailed | CodecError | OSError | MemoryError
    )
