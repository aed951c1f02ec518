"""Readable bytes, durations and shares."""


def gigabytes(size: int) -> str:
    """Decimal units, as disks are sold.

    >>> gigabytes(532), gigabytes(2_500_000), gigabytes(79_100_000_000)
    ('532 B', '2.5 MB', '79.1 GB')
    """
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def giga(count: int) -> str:
    """Multiply-adds.

    >>> giga(55_096_115_200), giga(314_572_800), giga(115_200), giga(6_516_982_415_360)
    ('55.1 G', '0.315 G', '0.000115 G', '6,517 G')
    """
    value = count / 1e9
    return f"{value:,.0f} G" if value >= 1000 else f"{value:.1f} G" if value >= 10 else f"{value:.3g} G"


def byte_rate(bytes_per_s: float) -> str:
    """
    >>> byte_rate(0), byte_rate(83_412.7), byte_rate(9e8), byte_rate(1.24e9)
    ('0 B/s', '83.4 kB/s', '900 MB/s', '1.2 GB/s')
    """
    number, unit = gigabytes(round(bytes_per_s)).split()
    return f"{float(number):.0f} {unit}/s" if float(number) >= 100 else f"{number} {unit}/s"


def duration(seconds: float) -> str:
    """
    >>> duration(0.42), duration(75), duration(9000), duration(400_000)
    ('0.4 s', '1.2 min', '2.5 h', '4.6 days')
    """
    for unit, scale in (("days", 2 * 86400), ("h", 3600), ("min", 60)):
        if seconds >= scale:
            return f"{seconds / min(scale, 86400):.1f} {unit}"
    return f"{seconds:.1f} s"


def rough_duration(seconds: float) -> str:
    """A forecast duration in words, without decimals that it does not have.

    >>> [rough_duration(seconds) for seconds in (0.4, 41, 370, 9000, 4e5)]
    ['a second', '40 seconds', '6 minutes', '2.5 hours', '5 days']
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{round(seconds) if seconds < 20 else round(seconds, -1):.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.2g} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def percent(share: float | None) -> str:
    """A score as people read it.

    >>> percent(0.12344), percent(None)
    ('12.34', '-')
    """
    return "-" if share is None else f"{100 * share:.2f}"
