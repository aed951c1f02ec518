"""Readable bytes and durations."""


def gigabytes(size: int) -> str:
    """Decimal units, as disks are sold.

    >>> gigabytes(532), gigabytes(2_500_000), gigabytes(79_100_000_000)
    ('532 B', '2.5 MB', '79.1 GB')
    """
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def duration(seconds: float) -> str:
    """
    >>> duration(0.42), duration(75), duration(9000), duration(400_000)
    ('0.4 s', '1.2 min', '2.5 h', '4.6 days')
    """
    for unit, scale in (("days", 2 * 86400), ("h", 3600), ("min", 60)):
        if seconds >= scale:
            return f"{seconds / min(scale, 86400):.1f} {unit}"
    return f"{seconds:.1f} s"
