"""`featcache demo`: the main job from end to end, with nothing downloaded, as the commands that a user would type."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import typer

from cli import console, demo_pictures
from featcache.errors import StoreError

SITE, LABELLED, UNSEEN = "demo", 5, 4
FITS = (("zero-shot", 0), ("linear", 1), ("linear", 5), ("spatial", 1), ("spatial", 5))


def run(out: Path) -> None:
    """Generate a shifted site's cohort in the folder `out`, adapt the built-in encoder to it, show what that gave.

    Raises
    ------
    StoreError
        `out` is there and not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} is there and not empty; remove it, or choose another --out", path=out)
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    shell = _Shell(out)
    console.say(
        f"A site that the built-in encoder has not seen: other scanner settings, heavier and iller people. "
        f"{LABELLED} of its scans are labelled, {UNSEEN} are to be segmented.\nEvery command is what you would type."
    )
    cases = LABELLED + UNSEEN
    shell(f"featcache phantom --site {SITE} --cases {cases} --labelled {LABELLED} --out .")
    shell("featcache extract --model builtin --in scans/")
    unseen = ",".join(f"{SITE}_{number:02d}" for number in range(LABELLED, cases))
    classes = ",".join(_classes(out))
    for method, shots in FITS:
        name = _name(method, shots)
        asked = f"--shots {shots}" if shots else f"--classes {classes}"
        shell(f"adapters train --method {method} {asked} --out adapters/{name}")
        preview = " --preview" if name == "spatial-5" else ""
        shell(f"adapters predict --adapter adapters/{name} --cases {unseen} --out masks/{name}{preview}")
        shell(f"adapters evaluate --pred masks/{name} --labels truth --out {name}.json", quiet=True)
    _summary(out)
    pictures = demo_pictures.save(out, f"{SITE}_{LABELLED:02d}", [(m, s, _name(m, s)) for m, s in FITS])
    for picture in pictures:
        console.say(f"picture: {picture}")
    console.say(f"{console.time_text(time.monotonic() - begun)}; everything lies in {out.resolve()}")


class _Shell:
    """Prints a command as a user types it, and runs it in a folder; a failure ends the demo."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, command: str, *, quiet: bool = False) -> None:
        console.say(f"\n$ {command}")
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [sys.executable, "-m", f"cli.{program}", *arguments],
            check=False,
            cwd=self._folder,
            stdout=subprocess.DEVNULL if quiet else None,
        )
        if done.returncode:
            raise typer.Exit(done.returncode)


def _name(method: str, shots: int) -> str:
    return f"{method}-{shots}" if shots else method


def _classes(out: Path) -> list[str]:
    names: dict[str, int] = json.loads((out / "truth" / "labels.json").read_text("utf-8"))
    return [name for name, value in names.items() if value]


def _summary(out: Path) -> None:
    from adapters.checkpoint import CONFIG

    reports = {(m, s): json.loads((out / f"{_name(m, s)}.json").read_text("utf-8")) for m, s in FITS}
    rows = []
    for (method, shots), report in reports.items():
        adapter = json.loads((out / "adapters" / _name(method, shots) / CONFIG).read_text("utf-8"))
        per_class = report["summary"]["classes"]
        cells = [f"{per_class[name]['dice']['mean'] or 0:.2f}" for name in per_class]
        mean = f"{report['summary']['mean_of_classes']['dice']:.3f}"
        rows.append(
            (
                method,
                shots or "-",
                mean,
                *cells,
                f"{adapter['trainable']:,}",
                console.time_text(adapter["seconds"]),
            )
        )
    names = list(reports[FITS[0]]["summary"]["classes"])
    console.say("")
    console.table(
        f"Dice on {UNSEEN} unseen scans", ("method", "shots", "mean", *names, "trained", "fit"), rows
    )
