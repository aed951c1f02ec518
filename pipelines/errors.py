"""What the exit code of a verb says, and which error gives which code."""

from __future__ import annotations

import errno
from collections.abc import Callable

from stores.errors import CodecError, IdentityError, IntegrityError, SpaceError

DONE, WORK_FAILED, USAGE, IDENTITY, INTEGRITY, SPACE = range(6)
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class UsageError(ValueError):
    """What was asked for cannot be done; says what was found, what was expected and what to do."""


class WorkFailed(RuntimeError):
    """The work was possible, and went wrong."""


class Interrupted(KeyboardInterrupt):
    """Stopped by the user; carries the command that goes on, where it is not the one that was stopped."""

    def __init__(self, command: str) -> None:
        self.command = command
        super().__init__(command)


_RULES: tuple[tuple[int, Callable[[BaseException], bool]], ...] = (
    (INTERRUPTED, lambda e: isinstance(e, KeyboardInterrupt)),
    (SPACE, lambda e: isinstance(e, SpaceError) or getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT)),
    (IDENTITY, lambda e: isinstance(e, IdentityError)),
    (INTEGRITY, lambda e: isinstance(e, IntegrityError)),
    (WORK_FAILED, lambda e: isinstance(e, CodecError)),  # a ValueError, of the features and not of the user
    # Every other refusal of a name, a path or a combination is a ValueError or one of these: own errors
    # inherit the builtin a caller expects.
    (USAGE, lambda e: isinstance(e, ValueError | FileNotFoundError | NotADirectoryError | IsADirectoryError)),
    (USAGE, lambda e: isinstance(e, PermissionError | FileExistsError)),
    (USAGE, lambda e: type(e).__name__ in ("WeightsUnavailable", "LevelMissing")),
)


def exit_code(error: BaseException) -> int:
    """The code for `error`; 1 for everything that is not the user's, the store's or the disk's doing."""
    return next((code for code, holds in _RULES if holds(error)), WORK_FAILED)


def is_foreseen(error: BaseException) -> bool:
    """Whether the message of `error` was written for the user; others are bugs and say how to see where."""
    return exit_code(error) != WORK_FAILED or isinstance(
        error, WorkFailed | CodecError | OSError | MemoryError
    )
