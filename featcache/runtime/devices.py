"""Which accelerators and how many processor cores are really there."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cuda_device_count() -> int:
    """Return how many CUDA devices the driver reports, 0 without a driver.

    ONNX Runtime lists its CUDA provider whether or not a GPU is there, and falls back to the CPU in
    silence, so the driver itself is asked.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def usable_cores() -> int:
    """Return how many processor cores this process may use: its affinity, and a container's quota, rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = (os.cpu_count() or 1) if affinity is None else len(affinity(0))
    try:
        quota, period = _CGROUP_QUOTA.read_text("utf-8").split()
        return max(min(cores, -(-int(quota) // int(period))), 1)
    except (OSError, ValueError):  # no cgroup of version 2, or "max"
        return cores
