"""Does extraction's memory grow with the scan's length? Is each shard written once?

    python benchmarks/memory.py --work /tmp/memory

A real CT, repeated along Z to 1x, 2x and 4x its length, through mr_meshnet_dk104 (21 channels, stride 1), each in
a process of its own. A volume of float32 features would be channels x length: 84 bytes a voxel.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from common import SHARED, encoder, write_result

from featcache import FeatureStore, extract
from featcache.store import verify

CHANNELS = 21


def main() -> None:
    """Measure each length in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--times", type=int, help="measure this length only, and print JSON")
    arguments = parser.parse_args()
    if arguments.times:
        print(json.dumps(measure(arguments.work, arguments.times)))
        return
    model = encoder("mr_meshnet_dk104", arguments.work)
    rows = []
    for times in (1, 2, 4):
        command = [sys.executable, __file__, "--work", str(arguments.work), "--times", str(times)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    print(write_result("memory", {"model": model.name, "channels": CHANNELS, "rows": rows}))


def measure(work: Path, times: int) -> dict[str, Any]:
    """Extract a scan of `times` the length; return sizes and the process' peak memory in MB."""
    source = nib.load(SHARED / "torso_ct" / "long_ct.nii.gz")
    voxels = np.tile(np.asarray(source.dataobj).astype(np.int16), (1, 1, times))
    folder = work / f"x{times}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(voxels, source.affine), folder / "scan.nii.gz")
    count = voxels.size
    del voxels, source
    before = peak()
    extract(work / "mr_meshnet_dk104.onnx", folder / "scan.nii.gz", folder / "features.zarr")
    after = peak()
    case = FeatureStore.open(folder / "features.zarr").case("scan")
    shards = [key for key in case.document.manifest if "/c/" in key]
    assert not verify(folder / "features.zarr").findings
    return {
        "times": times,
        "slices": case.info.native.shape[2],
        "voxels": count,
        "peak_mb": round(after, 1),
        "before_mb": round(before, 1),
        "scan_arrays_mb": round(8 * count / 1e6, 1),
        "peak_minus_scan_mb": round(after - 8 * count / 1e6, 1),
        "float32_features_mb": round(4 * CHANNELS * count / 1e6, 1),
        # The writer raises on a second write of a key, so each of these was written exactly once.
        "shards": len(shards),
    }


def peak() -> float:
    """Return the peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
