"""What an extraction will take, before it runs: windows, bytes on the disk, memory, time.

Windows and grids come from the code that the run uses, so their number is exact. Time, memory and compression
come from one window of one scan, which is really encoded and stored (`featcache.trial`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from featcache.costs import Cost
from featcache.encode import Encoder
from featcache.extraction import DEFAULT_STORE, ExtractOptions
from featcache.job import Job
from featcache.machine import free_bytes
from featcache.scans import ScanSource
from featcache.scouting import Scout, Seen
from featcache.trial import run_trial

OnScan = Callable[[int, int, str], None]
"""Told how many scans are looked at, of how many, and which is next."""


@dataclass(frozen=True)
class CasePlan:
    """What one scan will take.

    Parameters
    ----------
    case : str
        The case.
    state : {"todo", "done", "unfit"}
        ``done``: complete in the store, nothing to do. ``unfit``: it would fail, see `problem`.
    windows : int
        Windows to encode.
    bytes : int
        Features on the disk, after compression.
    memory : int or None
        Peak of the process, bytes, without a GPU's own; None where the system does not tell.
    seconds : float
        Reading, encoding, storing.
    problem : str
        Why the scan is unfit.
    """

    case: str
    state: Literal["todo", "done", "unfit"]
    windows: int = 0
    bytes: int = 0
    memory: int | None = 0
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class ExtractPlan:
    """What an extraction will take.

    Parameters
    ----------
    store : Path
        Where the features will go.
    free : int
        Bytes that are free on its disk.
    cases : tuple of CasePlan
        Every scan, in the order of the run.
    upper_bound : bool
        Whether windows and bytes are an upper bound: headers alone were read, and the encoder crops.
    device : str
        Where the timed window ran; empty if there was none, because nothing is left to do.
    sample : str
        The case whose window was timed.
    window_seconds, start_seconds : float
        For that window, and until the encoder is ready.
    """

    store: Path
    free: int
    cases: tuple[CasePlan, ...]
    upper_bound: bool = False
    device: str = ""
    sample: str = ""
    window_seconds: float = 0.0
    start_seconds: float = 0.0

    @property
    def windows(self) -> int:
        """Windows of all cases."""
        return sum(case.windows for case in self.cases)

    @property
    def bytes(self) -> int:
        """Features of all cases on the disk."""
        return sum(case.bytes for case in self.cases)

    @property
    def memory(self) -> int | None:
        """Peak of the process, bytes; None where the system does not tell."""
        known = [case.memory for case in self.cases]
        return None if None in known else max((m for m in known if m is not None), default=0)

    @property
    def seconds(self) -> float:
        """Time of the whole run."""
        return self.start_seconds + sum(case.seconds for case in self.cases)

    @property
    def fits(self) -> bool:
        """Whether the disk has room for the features."""
        return self.bytes <= self.free

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        totals = {name: getattr(self, name) for name in ("windows", "bytes", "memory", "seconds", "fits")}
        return {**dataclasses.asdict(self), "store": str(self.store), **totals}


def plan(
    model: Path | str,
    inputs: Path | str | Sequence[Path | str],
    out: Path | str = DEFAULT_STORE,
    *,
    options: ExtractOptions | None = None,
    quick: bool = False,
    on_scan: OnScan | None = None,
) -> ExtractPlan:
    """Return what `featcache.extract` of the same arguments will take; nothing is written at `out`.

    The foreground is in the voxels, so for an encoder that crops every scan is read and prepared, which takes
    as long as the run's own reading. For one that does not, headers give windows and grids, and how busy the
    scans are is seen from a few of them.

    Parameters
    ----------
    model, inputs, out, options
        As in `featcache.extract`.
    quick : bool
        Read headers, and the voxels of a few scans: an upper bound where the encoder crops.
    on_scan : callable, optional
        Told about progress.

    Raises
    ------
    CardError, EncoderError, ScanReadError, StoreError
        Where the extraction could not begin, or its encoder does not work. Scans that it would fail on are
        in the plan.
    """
    options = options or ExtractOptions()
    job, out = Job.of(model, inputs, options), Path(out)
    left = {source.case for source in job.left(out)}
    scout = Scout(job.card, options, voxels=job.card.preparation.crop is not None and not quick)
    looked: dict[str, Seen | str] = {}
    for source in job.found.sources:
        if source.case in left:
            if on_scan is not None:
                on_scan(len(looked), len(left), source.case)
            looked[source.case] = scout.look(source)
    plain = ExtractPlan(out, free_bytes(out), tuple(_unplanned(s, looked) for s in job.found.sources))
    seen = [found for found in looked.values() if isinstance(found, Seen)]
    if not seen:
        return plain
    return _with_trial(plain, job, options, seen, upper=quick and job.card.preparation.crop is not None)


def _unplanned(source: ScanSource, looked: dict[str, Seen | str]) -> CasePlan:
    found = looked.get(source.case)
    if isinstance(found, str):
        return CasePlan(source.case, "unfit", problem=found)
    return CasePlan(source.case, "done" if found is None else "todo")


def _with_trial(
    plain: ExtractPlan, job: Job, options: ExtractOptions, seen: Sequence[Seen], *, upper: bool
) -> ExtractPlan:
    """Return the plan with what a timed window says of every scan."""
    device = ""

    def encoder() -> Encoder:
        nonlocal device
        made = options.encoder(job.model, job.card)
        device = made.device
        return made

    scout = Scout(job.card, options, voxels=True)
    read = [s for s in seen if s.contents is not None] or scout.a_few(seen)
    sample = scout.sample(read)
    trial = run_trial(sample, job.card, options.precision, encoder)
    cost = Cost(job.card, options.precision.dtype, trial, read)
    known = {} if upper else {s.source.case: s for s in read}
    costs = {s.source.case: cost.of(known.get(s.source.case, s)) for s in seen}
    planned = {case: CasePlan(case, "todo", *costs[case]) for case in costs}
    return dataclasses.replace(
        plain,
        cases=tuple(planned.get(case.case, case) for case in plain.cases),
        upper_bound=upper,
        device=device,
        sample=sample.case,
        window_seconds=trial.window_seconds,
        start_seconds=trial.start_seconds,
    )
