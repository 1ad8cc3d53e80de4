"""SIGKILL at random moments of an extraction: what is left is whole, and the next run completes it.

Set FEATCACHE_CRASHES to a larger number for a long run by hand.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from featcache.extraction import ExtractOptions, extract
from featcache.store import FeatureStore, verify

CRASHES = int(os.environ.get("FEATCACHE_CRASHES", "8"))
OPTIONS = ExtractOptions(device="cpu", threads=1)
CASES = ["a", "b", "c", "d"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@dataclass(frozen=True)
class Undisturbed:
    """A model and scans, what an extraction without crash makes of them, and how long it writes."""

    place: Path
    files: dict[str, str]
    names: set[str]
    seconds: float

    def start(self, store: Path):
        """Return a fresh process that extracts into `store`."""
        context = multiprocessing.get_context("forkserver")
        arguments = (self.place / "fm.onnx", self.place / "scans", store)
        process = context.Process(target=extract, args=arguments, kwargs={"options": OPTIONS})
        process.start()
        return process

    def finish(self, store: Path):
        return extract(self.place / "fm.onnx", self.place / "scans", store, options=OPTIONS)


def contents(store: Path) -> dict[str, str]:
    """Return path -> sha256 of every file in the store."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(fakes, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # numcodecs makes a lock when imported, and a server of forks has nobody to release it.
        patch.setenv("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
        yield _undisturbed(fakes, tmp_path_factory.mktemp("crash"))


def _undisturbed(fakes, place: Path) -> Undisturbed:
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["featcache.extraction", "featcache.store.arrays", "onnxruntime", "onnx", "SimpleITK"]
    )
    fakes.conv_encoder(place / "fm.onnx")
    for seed, case in enumerate(CASES):
        rng = np.random.default_rng(seed)
        voxels = rng.normal(size=(30, 26, 40)).astype(np.float32)
        fakes.write_scan(place / "scans" / f"{case}.nii.gz", voxels)
    result = Undisturbed(place, {}, set(), 0)
    times = []
    for name in ("warm-up", "reference"):
        store = place / name / "features.zarr"
        store.parent.mkdir()
        process = result.start(store)
        wait_for_first_file(process, store.parent)
        began = time.monotonic()
        process.join()
        times.append(time.monotonic() - began)
        assert process.exitcode == 0
        process.close()
    assert FeatureStore.open(store).cases() == CASES
    return Undisturbed(place, contents(store), {p.name for p in store.parent.iterdir()}, min(times))


def wait_for_first_file(process, folder: Path) -> None:
    before = set(folder.iterdir())
    while process.exitcode is None and set(folder.iterdir()) == before:
        time.sleep(1e-3)


def kill(process, folder: Path, after: float) -> bool:
    """Kill the process some seconds after it began to write in `folder`; return whether that ended it."""
    wait_for_first_file(process, folder)
    process.join(after)
    process.kill()
    process.join()
    # It may end by itself between the two lines above.
    assert process.exitcode in (0, -signal.SIGKILL)
    killed = process.exitcode != 0
    process.close()
    return killed


def assert_whole(store: Path, undisturbed: Undisturbed) -> list[str]:
    """Check what a crash left, return the complete cases."""
    if not store.exists():
        return []
    opened = FeatureStore.open(store)
    for case in opened.cases():
        prefix = f"cases/{case}/"
        expected = {k: v for k, v in undisturbed.files.items() if k.startswith(prefix)}
        assert {k: v for k, v in contents(store).items() if k.startswith(prefix)} == expected
        assert opened.case(case).level("l3").read((0, 0, 0), (8, 7, 20)).shape == (8, 8, 7, 20)
    assert verify(store).findings == []
    return opened.cases()


def assert_completed(store: Path, undisturbed: Undisturbed) -> None:
    assert contents(store) == undisturbed.files
    assert verify(store).findings == []
    # Nothing is left beside the store either.
    assert {path.name for path in store.parent.iterdir()} == undisturbed.names


def test_a_killed_extraction_is_completed_by_the_next(undisturbed, tmp_path):
    moments = random.Random(20)
    left, killed = [], 0
    for crash in range(CRASHES):
        store = tmp_path / str(crash) / "features.zarr"
        store.parent.mkdir()
        # Stratified, so that few crashes fall into all parts of a run.
        share = (crash + moments.random()) / CRASHES
        killed += kill(undisturbed.start(store), store.parent, share * undisturbed.seconds)
        whole = assert_whole(store, undisturbed)
        result = undisturbed.finish(store)
        assert result.failed == {}
        assert sorted((*result.done, *result.skipped)) == CASES
        # What was complete is not done again, but for the one whose source was not yet noted.
        assert len(set(whole) & set(result.done)) <= 1
        assert_completed(store, undisturbed)
        left.append(len(whole))
    assert killed, "every kill came too late: nothing was tested"
    assert min(left) < len(CASES)


def test_a_run_that_is_killed_again_and_again_gets_there(undisturbed, tmp_path):
    store = tmp_path / "features.zarr"
    moments = random.Random(21)
    for _ in range(max(CRASHES // 2, 2)):
        kill(undisturbed.start(store), store.parent, moments.uniform(0, 0.6) * undisturbed.seconds)
        assert_whole(store, undisturbed)
    undisturbed.finish(store)
    assert_completed(store, undisturbed)
