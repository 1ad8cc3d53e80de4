"""Which accelerators are really there."""

from __future__ import annotations

import ctypes
import sys


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
