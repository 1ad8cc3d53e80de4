"""`adapters compare`: which method, how many shots? FSEFT's protocol on a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from cli.options import Device, Levels, OtherRecipe, Recipe, Stores, Width, open_stores
from featcache.errors import ScanReadError, StoreError, TaskError

if TYPE_CHECKING:
    from adapters.comparison import Comparison, Fold
    from adapters.segmenter import FewShotSegmenter
    from featcache.store import FeatureStore


def compare(
    methods: Annotated[
        str, typer.Option(help="Methods, a,b,c; name@level+level reads other levels than the rest.")
    ] = "linear,spatial",
    shots: Annotated[str, typer.Option(help="Numbers of labelled cases, 1,5,10.")] = "1,5",
    folds: Annotated[int, typer.Option(min=1, help="Draws of the support cases.")] = 3,
    store: Stores = None,
    classes: Annotated[
        str | None, typer.Option(help="Such as liver,kidney=2+3; all that every case annotates by default.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Cases to test on, a,b,c; a third of the labelled ones by default.")
    ] = None,
    folds_file: Annotated[
        Path | None,
        typer.Option(help='Folds of your own: {"folds": [{"support": ["a"], "test": ["b"]}]}.'),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Method to test the others against; zero-shot, else linear.")
    ] = None,
    levels: Levels = None,
    recipe: Recipe = "fast",
    width: Width = 48,
    surfaces: Annotated[
        float | None, typer.Option(help="Also score surfaces: NSD at this tolerance in mm, and HD95.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the scans, for the report's pictures; features by default.")
    ] = None,
    other_recipe: OtherRecipe = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the runs.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws and of the trainings.")] = 0,
    device: Device = "auto",
    out: Annotated[
        Path, typer.Option(help="Folder for the results; a started comparison goes on where it was.")
    ] = Path("comparison"),
) -> None:
    """Compare methods over shots and folds: a table, a CSV, JSON, and a report to open in a browser.

    Every run is kept as it ends, with its adapter; run the same command again to go on, or with more methods or
    shots to add to it. Exit code 3: some runs failed, each is named.
    """
    from adapters.protocol import Protocol
    from adapters.protocol import compare as run

    numbers = console.choice("--recipe", recipe, ("fast", "paper"))
    counts = _numbers(shots)
    if test is not None and folds_file is not None:
        raise typer.BadParameter("found both --test and --folds-file; expected one", param_hint="--test")
    if images is not None and not images.is_dir():
        raise ScanReadError(f"--images {images}: no such folder; expected the scans' folder", path=images)
    opened = open_stores(store, other_recipe=other_recipe)
    protocol = Protocol(
        methods=tuple(console.split(methods)),
        shots=counts,
        folds=_folds(opened, counts, folds, test, folds_file, seed),
        classes=classes,
        levels=tuple(console.split(levels)) if levels else None,
        recipe=numbers,
        width=width,
        seed=seed,
        device=device,
        tolerance_mm=surfaces,
        baseline=baseline,
    )
    with console.Steps("compare", "runs") as steps:
        comparison, failed = run(opened, protocol, out, jobs=jobs, on_run=steps.update)
    if comparison.runs:
        _write(comparison, opened, out, images, device)
    for name, message in failed.items():
        console.fail(f"{name}: {message}")
    if failed:
        raise typer.Exit(console.EXIT_SOME_FAILED if comparison.runs else console.EXIT_ERROR)


def tell_what_to_expect(store: FeatureStore, segmenter: FewShotSegmenter) -> None:
    """Show the Dice of support cases that were left out of the training, class by class.

    Each part is fitted as `segmenter` says on the other cases, so with one case fewer (or a fifth) than the adapter
    itself will see.
    """
    import tempfile

    from adapters.comparison import table_rows
    from adapters.folds import cross_validation
    from adapters.protocol import Protocol
    from adapters.protocol import compare as run
    from adapters.segmenter import choose_support

    cases = choose_support(store, segmenter)
    folds = cross_validation(store, cases)
    protocol = Protocol(
        methods=(segmenter.method,),
        shots=(max(len(fold.support) for fold in folds),),
        folds=folds,
        classes=segmenter.classes,
        levels=None if segmenter.levels is None else tuple(segmenter.levels),
        recipe=segmenter.recipe,
        width=segmenter.width,
        seed=segmenter.seed,
        device=segmenter.device,
    )
    with tempfile.TemporaryDirectory() as folder, console.Steps("cross-validate", "fits") as steps:
        comparison, failed = run(store, protocol, Path(folder), on_run=steps.update)
    for name, message in failed.items():
        console.warn(f"cross-validation {name}: {message}")
    if not comparison.runs:
        return
    (row,) = table_rows(comparison)
    per_case = [run.class_dice() for run in comparison.runs]
    rows = [
        (name, f"{mean:.3f}", f"{min(found[name] for found in per_case if name in found):.3f}")
        for name, (mean, _) in row.classes.items()
    ]
    console.table(
        f"what to expect: Dice of {len(cases)} cases, each left out of the training",
        ("class", "mean", "worst part"),
        [*rows, ("mean of classes", f"{row.dice:.3f}", f"{min(r.dice or 0.0 for r in comparison.runs):.3f}")],
    )


def _folds(
    store: FeatureStore, shots: tuple[int, ...], folds: int, test: str | None, file: Path | None, seed: int
) -> tuple[Fold, ...]:
    from adapters.folds import draw_folds, read_folds

    if file is not None:
        return read_folds(file, store, max(shots))
    cases = None if test is None else console.split(test)
    return draw_folds(store, shots=max(shots), folds=folds, test=cases, seed=seed)


def _write(comparison: Comparison, store: FeatureStore, out: Path, images: Path | None, device: str) -> None:
    """Write the results, and show the table."""
    from adapters import report
    from adapters.comparison import table_rows
    from adapters.segmenter import FittedSegmenter
    from adapters.task import Task

    try:
        (out / "results.json").write_text(
            json.dumps(comparison.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )
        (out / "table.md").write_text(report.markdown(comparison), "utf-8")
    except OSError as error:
        raise StoreError(f"--out {out} cannot be written: {error}", path=out) from error
    report.write_csv(comparison, out / "cases.csv")
    rows = table_rows(comparison)
    best = max(rows, key=lambda row: (row.shots == rows[-1].shots, row.dice))
    run = comparison.at(best.method, best.shots)[0]
    fitted = FittedSegmenter.load(out / "adapters" / run.name, device)
    task = Task.from_json(comparison.settings["task"])
    pictures = report.case_pictures(fitted, store, run, images=images, task=task)
    report.write_html(comparison, out / "report.html", pictures=pictures)
    console.table(
        f"Dice, mean ± deviation over folds; {comparison.baseline} is the baseline",
        ("method", "shots", "Dice", "to baseline", "p", "missed", "trained", "fit"),
        [
            (
                row.method,
                row.shots or "-",
                f"{row.dice:.3f} ± {row.spread:.3f}",
                "" if row.difference is None else f"{row.difference:+.3f}",
                "" if row.p is None else f"{row.p:.2g}",
                row.missed,
                f"{row.trainable:,}",
                console.time_text(row.seconds),
            )
            for row in rows
        ],
    )
    console.say(f"{out / 'report.html'}: open it in a browser; adapters lie in {out / 'adapters'}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in console.split(text))
    except ValueError as error:
        raise TaskError(f"--shots {text!r}: expected numbers with commas between, such as 1,5,10") from error
