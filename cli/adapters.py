"""`adapters`: feature store -> adapter -> masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from cli.compare import compare, tell_what_to_expect
from cli.export import export_command
from cli.options import (
    Budget,
    Device,
    Levels,
    OtherRecipe,
    Recipe,
    Stores,
    Width,
    open_stores,
    parse_budget,
)
from cli.predict import predict
from featcache.errors import StoreError

if TYPE_CHECKING:
    from adapters.segmenter import FittedSegmenter

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train a light segmentation adapter on cached features, and write masks on the scans' own grids.",
)

app.command()(compare)
app.command("export")(export_command)


@app.callback()
def _main(version: console.Version = False) -> None:
    del version


@app.command()
def train(
    shots: Annotated[int | None, typer.Option(help="Labelled cases to draw; all of them by default.")] = None,
    store: Stores = None,
    method: Annotated[
        str,
        typer.Option(
            help="zero-shot, prototype, logistic, linear, pointwise, spatial, context, or an installed one."
        ),
    ] = "spatial",
    classes: Annotated[
        str | None,
        typer.Option(
            help="Such as liver,kidney=2+3; all that the support shows by default. x=a|b: either name."
        ),
    ] = None,
    support: Annotated[
        str | None, typer.Option(help="Cases to train on, a,b,c, in place of --shots.")
    ] = None,
    levels: Levels = None,
    recipe: Recipe = "fast",
    width: Width = 48,
    cross_validate: Annotated[
        bool,
        typer.Option(
            "--cross-validate", help="First tell what to expect: each support case left out in turn."
        ),
    ] = False,
    budget: Budget = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and of the training.")] = 0,
    other_recipe: OtherRecipe = False,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="The adapter to make; an existing one is refused.")] = Path(
        "adapter"
    ),
) -> None:
    """Fit an adapter on labelled cases of a store: no images, no network weights."""
    from adapters.checkpoint import refuse_existing
    from adapters.segmenter import FewShotSegmenter

    numbers = console.choice("--recipe", recipe, ("fast", "paper"))
    refuse_existing(out)
    opened = open_stores(store, other_recipe=other_recipe)
    segmenter = FewShotSegmenter(
        method=method,
        shots=shots,
        support=None if support is None else console.split(support),
        classes=classes,
        levels=None if levels is None else console.split(levels),
        recipe=numbers,
        width=width,
        seed=seed,
        device=device,
        budget=parse_budget(budget),
    )
    if cross_validate:
        tell_what_to_expect(opened, segmenter)
    with console.Steps(f"train {method}", "steps") as steps:
        fitted = segmenter.fit(opened, on_step=steps.on_step, keep=out.with_name(f".{out.name}.training"))
    fitted.save(out)
    if not fitted.info.support and (shots is not None or support is not None):
        console.note(f"{method} trains nothing: --shots and --support are not used")
    _describe(fitted, out)


def _describe(fitted: FittedSegmenter, out: Path) -> None:
    info, task = fitted.info, fitted.adapter.task
    console.say(f"classes    {', '.join(f'{n} ({v})' for n, v in task.values.items())}")
    if info.support:
        console.say(f"support    {', '.join(info.support)}")
    loss = f", loss {info.curve[0]:.3f} -> {info.curve[-1]:.3f}" if info.curve else ""
    console.say(f"trained    {info.trainable:,} parameters, {len(info.curve)} steps{loss}")
    console.say(f"{out}: {info.method} adapter for {info.encoder_name}, {console.time_text(info.seconds)}")


app.command()(predict)


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Option(help="Folder of masks that `predict` wrote.")],
    labels: Annotated[Path, typer.Option(help="Folder of label files, one file, or a CSV.")],
    out: Annotated[Path | None, typer.Option(help="Report to write, JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="A row per case and class to write, CSV.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Mask classes from label classes, such as kidney=2+3.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Of the normalised surface distance, mm.")] = 2.0,
    annotated: Annotated[
        str, typer.Option(help="Classes annotated in a label file: all or present.")
    ] = "all",
) -> None:
    """Compare masks with labels: Dice, NSD and HD95 per class and case.

    A missed structure counts with Dice 0, NSD 0 and the scan's diagonal as HD95. Exit code 3: some labels have
    no mask, or some cases failed.
    """
    from adapters.evaluate import table, write_json
    from cli.evaluation import evaluate as run_evaluate

    for path in (out, csv):
        if path is not None and not path.absolute().parent.is_dir():
            raise StoreError(f"{path}: its folder does not exist; expected a place to write to", path=path)
    with console.Steps("evaluate", "cases") as steps:
        report = run_evaluate(
            pred,
            labels,
            classes=classes,
            annotated=console.choice("--annotated", annotated, ("all", "present")),
            tolerance_mm=tolerance,
            csv=csv,
            progress=steps.update,
        )
    if out is not None:
        write_json(report, out)
    titles, rows = table(report)
    console.table("", titles, rows)
    for text in report.notes:
        console.note(text)
    for case, message in report.failed.items():
        console.fail(f"{case}: {message}")
    if report.missing_predictions:
        console.warn(f"labels without a mask: {', '.join(report.missing_predictions)}")
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def main() -> None:
    """Run the program."""
    console.run(app)


if __name__ == "__main__":
    main()
