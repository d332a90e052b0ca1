"""How much memory there is, so that what does not fit is refused before it is read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["available_memory", "check_room"]


def available_memory() -> float:
    """Bytes that this process may still take, of the machine and of its control group; infinite where nothing tells."""
    free = float("inf")
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    with suppress(OSError, ValueError):  # "max" is no number: there is no limit
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text(encoding="utf-8")) - _reclaimable(group / "memory.stat")
        free = min(free, float(int((group / "memory.max").read_text(encoding="utf-8")) - used))
    return max(free, 0.0)


def _reclaimable(stat: Path) -> int:
    """Of a control group: pages of files, which the system gives up when memory is wanted."""
    rows = (line.split() for line in stat.read_text(encoding="utf-8").splitlines())
    return next((int(value) for key, value in rows if key == "inactive_file"), 0)


def check_room(needed: float, what: str, cure: str) -> None:
    """Refuse what does not fit.

    Args:
        needed: bytes.
        what: it is, the beginning of a sentence.
        cure: what to do, the end of it.

    Raises:
        ValueError: it needs more than there is.
    """
    if needed > (free := available_memory()):
        raise ValueError(
            f"{what} needs about {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are free: {cure}"
        )
