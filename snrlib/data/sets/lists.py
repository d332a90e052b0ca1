"""Lists that come with a data set: read, and compared with each other and with the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

__all__ = ["check_same", "read_list", "read_map", "repeated", "some"]


def read_list(path: Path, columns: int, header: bool = False) -> list[tuple[str, ...]]:
    """The rows of a text list, ``columns`` fields each, separated by blanks; the last field may hold blanks.

    Args:
        path: the list.
        columns: fields a row.
        header: whether the first row names the columns.

    Raises:
        ValueError: a row of another number of fields, by its number; or no row at all.
        FileNotFoundError: there is no such list.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = tuple(line.split(maxsplit=columns - 1))
        if not fields or (header and number == 1):
            continue
        if len(fields) != columns:
            raise ValueError(f"{path}, line {number}: {columns} fields are expected, got {line!r}")
        rows.append(fields)
    if not rows:
        raise ValueError(f"{path} lists nothing")
    return rows


def read_map(path: Path) -> dict[str, str]:
    """A text list of two fields a row, as a mapping from the first to the second.

    Raises:
        ValueError: a row of another number of fields, or a first field that stands twice.
        FileNotFoundError: there is no such list.
    """
    rows = read_list(path, columns=2)
    if twice := repeated(key for key, _ in rows):
        raise ValueError(f"{path} holds {len(twice)} entries more than once: {some(twice)}")
    return {row[0]: row[1] for row in rows}


def repeated(names: Iterable[str]) -> list[str]:
    """Those that stand more than once, each once, in the order of their first."""
    return [name for name, n in Counter(names).items() if n > 1]


def check_same(one: Collection[str], one_name: str, other: Collection[str], other_name: str) -> None:
    """Refuse two lists that do not hold the same.

    Raises:
        ValueError: with the number and the first of the entries that only one of them holds.
    """
    for here, name, there, there_name in ((one, one_name, other, other_name), (other, other_name, one, one_name)):
        if only := sorted(set(here) - set(there)):
            raise ValueError(f"{len(only)} of {len(set(here))} in {name} are not in {there_name}: {some(only)}")


def some(names: Collection[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    first = ", ".join(list(names)[:most])
    return first + (f" and {len(names) - most} more" if len(names) > most else "")
