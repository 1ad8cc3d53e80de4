"""Does the plan tell the truth? Windows, bytes, peak memory and time of `featcache plan` against `extract`.

    taskset -c 0 python benchmarks/extraction/plan_truth.py --work /tmp/plan_truth

The built-in encoder on a torso CT and two head-and-neck CTs, and ct_i3resnet152_l1l2 on the two: planned by one
process, extracted by another, each fresh and with one thread. Bytes are those of all files of the store; memory is
the process' peak as the system counts it; time is the process' own, its imports included. Where other work shares the
cores, time hangs on what that does: so the plan is made once more with a clock that counts the process' own computing,
and compared with what the system says that the run computed ("computing").
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import HERE, encoder, shared_data, write_result

HEAD_AND_NECK = ("openkbp/images/pt_1.nii.gz", "openkbp/images/pt_12.nii.gz")
RUNS = {
    "builtin": ("torso_ct/long_ct.nii.gz", *HEAD_AND_NECK),
    "ct_i3resnet152_l1l2": HEAD_AND_NECK,
}
ROWS = ("windows", "bytes", "memory", "seconds", "computing")
PROGRAM = "from cli.featcache import main; main()"
OWN_CLOCK = f"import time; time.perf_counter = time.process_time; {PROGRAM}"


def main() -> None:
    """Plan and extract with each encoder, print both, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [measure(name, arguments.work) for name in RUNS]
    for row in rows:
        print(f"\n{row['encoder']}, {len(row['scans'])} scans")
        for key in ROWS:
            planned, real = row["planned"][key], row["real"][key]
            print(f"  {key:9} planned {planned:13.6g}  real {real:13.6g}  ratio {planned / real:.3f}")
    print(write_result("plan_truth", {"rows": rows}))


def measure(name: str, work: Path) -> dict[str, Any]:
    """Return what was planned for an encoder's run, and what the run then took."""
    model = encoder(name, work)
    store = work / f"{name}.zarr"
    shutil.rmtree(store, ignore_errors=True)
    store.with_name(f"{name}.private.json").unlink(missing_ok=True)
    scans = [f"--in={shared_data() / scan}" for scan in RUNS[name]]
    arguments = [f"--model={model}", *scans, f"--out={store}", "--device=cpu", "--threads=1"]
    planning = run(["plan", *arguments, "--json"])
    plan = json.loads(planning.printed)
    computing = json.loads(run(["plan", *arguments, "--json"], OWN_CLOCK).printed)["seconds"]
    extracting = run(["extract", *arguments])
    info = json.loads(run(["info", str(store), "--json"]).printed)
    return {
        "encoder": name,
        "scans": list(RUNS[name]),
        "planned": {**{key: plan[key] for key in ROWS if key in plan}, "computing": computing},
        "real": {
            "windows": windows(store, model),
            "bytes": sum(p.stat().st_size for p in store.rglob("*") if p.is_file()),
            "memory": extracting.memory,
            "seconds": extracting.seconds,
            "computing": extracting.computing,
        },
        "planning_seconds": planning.seconds,
        "cases": {
            case["case"]: {
                "planned_bytes": case["bytes"],
                "real_bytes": sum(
                    level["bytes"]
                    for c in info["cases"]
                    if c["id"] == case["case"]
                    for level in c["levels"].values()
                ),
            }
            for case in plan["cases"]
        },
    }


def windows(store: Path, model: Path) -> int:
    """Return the windows of the grids that were really prepared."""
    from featcache import FeatureStore
    from featcache.encode import count_windows
    from featcache.onnxfile import read_card

    opened, card = FeatureStore.open(store), read_card(model)
    return sum(count_windows(opened.case(c).info.prepared.shape, card) for c in opened.cases())


class Ran(NamedTuple):
    """What a process printed, how long it took, how long it computed, and the peak of its memory, bytes."""

    printed: str
    seconds: float
    computing: float
    memory: int


def run(command: list[str], program: str = PROGRAM) -> Ran:
    """Run `featcache` in a process of its own."""
    begun = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"featcache {' '.join(command)} ended with {process.returncode}")
    computing = usage.ru_utime + usage.ru_stime
    seconds = time.perf_counter() - begun
    return Ran(printed, round(seconds, 1), round(computing, 1), usage.ru_maxrss * 1024)


if __name__ == "__main__":
    main()
