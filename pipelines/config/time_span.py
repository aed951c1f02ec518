"""Lengths of time with units, as flags take them: 3h50m, 90s."""

import re

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def seconds_of(text: str) -> int:
    """Seconds of a length of time with units, the largest first.

    Raises ValueError for anything else, such as a number without a unit.

    >>> seconds_of("3h50m"), seconds_of("90s"), seconds_of("1d12h")
    (13800, 90, 129600)
    """
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or found is None:
        raise ValueError(f"{text!r}: expected a time with units such as 3h50m, 90m or 1d12h")
    return sum(int(n or 0) * s for n, s in zip(found.groups(), _SECONDS.values(), strict=True))
