"""What this machine has: memory, cores, free disk. Numbers from the system, None where it does not tell."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_MEMORY = ("memory.max", "memory/memory.limit_in_bytes")
_SELF = Path("/proc/self")


def resident_bytes() -> int | None:
    """Return the memory that this process holds now, bytes; None but on Linux."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """Return the most memory that this process has held since `reset_peak`, bytes; since its start elsewhere.

    On Windows, None.
    """
    peak = _status("VmHWM")
    if peak is not None or sys.platform == "win32":
        return peak
    import resource

    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def reset_peak() -> None:
    """Begin anew with `peak_bytes`, where the system lets us (proc(5), clear_refs)."""
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return


def memory_bytes() -> int | None:
    """Return the memory that this process may use: the machine's, or its control group's limit if that is less."""
    try:
        total: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = None
    limits = [int(text) for name in _CGROUP_MEMORY if (text := _read(_CGROUP / name)).isdigit()]
    return min([*limits, *([] if total is None else [total])], default=None)


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, or its control group's quota if that is less."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if not (quota.isdigit() and period.isdigit()):
        return affinity
    return max(1, min(affinity, round(int(quota) / int(period))))


def free_bytes(place: Path) -> int:
    """Return the free bytes of the disk on which `place` lies, or will lie once it is made."""
    there = place.resolve()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets that the processor names, such as ``avx512_bf16``; none but on Linux."""
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def _status(name: str) -> int | None:
    for line in _read(_SELF / "status").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
