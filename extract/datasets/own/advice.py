"""What errors about own data end with."""

from __future__ import annotations

from pathlib import Path

from extract.sources.listing import is_hidden, number_of

DESCRIBE = (
    "own data: `python -m pipelines describe FOLDER --out my.yaml` looks at a folder and writes its "
    "description, which takes the place of the data set's name"
)


def contents(folder: Path) -> str:
    """What a folder holds, in a few words, for errors.

    >>> contents(Path("/no/such/folder"))
    '/no/such/folder does not exist'
    """
    if not folder.exists():
        return f"{folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is a file"
    names = sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in folder.iterdir()
        if not is_hidden(path.name)
    )
    if not names:
        return f"{folder} is empty"
    shown = ", ".join(ascii(name)[1:-1] for name in names[:5])
    return f"{folder} holds {number_of(len(names), 'entry').replace('entrys', 'entries')}: {shown}" + (
        ", ..." if len(names) > 5 else ""
    )
