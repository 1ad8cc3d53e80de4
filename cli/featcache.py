"""`featcache`: scans -> feature store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import console
from cli.doctor import doctor
from cli.options import (
    AssumeHu,
    ComputePrecision,
    Encoder,
    EncoderDevice,
    Inputs,
    NanTo,
    Runtime,
    Spacing,
    StorePrecision,
    Threads,
    exit_code_of,
    extract_options,
    report_cases,
    stored_error_text,
)
from cli.plan import plan
from cli.requantise import requantise_command
from featcache.errors import CardError, StoreError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Run a frozen 3D encoder once over each scan and keep its dense features in a store.",
)
encoder = typer.Typer(
    no_args_is_help=True, help="Get from a vendor's ONNX file to an encoder that `extract` can use."
)
app.add_typer(encoder, name="encoder")
app.command("requantise")(requantise_command)

Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file.")]
Store = Annotated[Path | None, typer.Argument(metavar="STORE", help="The store; the one in this folder.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Labels: folder, file or CSV. Default: labels/, labelsTr/ or dataset.json beside or in --in."
    ),
]
AnnotatedClasses = Annotated[
    str,
    typer.Option(
        "--annotated", help="Classes that count as annotated in a case: 'all' named ones, or those 'present'."
    ),
]


@app.callback()
def _main(version: console.Version = False) -> None:
    del version


@app.command()
def extract(
    model: Encoder,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The store to make or to go on with.")] = Path("features.zarr"),
    labels: Labels = None,
    annotated: AnnotatedClasses = "all",
    runtime: Runtime = "onnxruntime",
    compute_precision: ComputePrecision = "float32",
    device: EncoderDevice = "auto",
    threads: Threads = None,
    spacing: Spacing = None,
    store_precision: StorePrecision = "float16",
    nan_to: NanTo = None,
    assume_hu: AssumeHu = False,
) -> None:
    """Encode every scan once and keep its dense features; `featcache plan` tells before what that takes.

    Complete cases are skipped unless their source changed, so an interrupted run goes on where it was.
    Source paths stay in a private file beside the store. Exit code 3: some cases failed.
    """
    from featcache.extraction import extract as run_extract

    options = extract_options(
        runtime, compute_precision, device, threads, spacing, store_precision, nan_to, assume_hu, annotated
    )
    with console.Steps("extract", "cases") as steps:
        display = console.ExtractDisplay(steps)
        result = run_extract(model, inputs, out, labels=labels, options=options, on_event=display)
    report_cases(result, "extracted")


app.command()(plan)


@app.command()
def label(
    inputs: Inputs,
    store: Annotated[Path | None, typer.Option(help="The store; the one in this folder by default.")] = None,
    labels: Labels = None,
    annotated: AnnotatedClasses = "all",
) -> None:
    """Add or replace labels in a store; features stay as they are and the encoder is not needed."""
    from featcache.labelling import add_labels

    with console.Steps("label", "cases") as steps:
        result = add_labels(
            _store(store),
            inputs,
            labels,
            annotated=console.choice("--annotated", annotated, ("all", "present")),
            on_event=console.ExtractDisplay(steps),
        )
    written, same = len(result.labelled), len(result.skipped)
    console.say(
        f"{result.store}: labels of {written} cases written, {same} unchanged, {len(result.failed)} failed"
    )
    exit_code_of(result)


@app.command()
def info(
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show what a store holds: encoder, recipe, cases, grids, sizes, labels."""
    from featcache.store import FeatureStore

    described = FeatureStore.open(_store(store)).describe()
    if as_json:
        console.print_json(described)
        return
    _show(described)


@app.command()
def verify(store: Store = None) -> None:
    """Check every object of a store against its manifest: lost, truncated or changed bytes are named."""
    from featcache.store import verify as run_verify

    path = _store(store)
    with console.Steps("verify", "objects") as steps:
        report = run_verify(path, on_object=steps.update)
    for finding in report.findings:
        console.fail(f"{path / finding.path}: {finding.problem}. {finding.advice}")
    checked = f"{report.n_objects} objects, {console.size_text(report.n_bytes)}"
    if report.findings:
        console.say(f"{path}: {len(report.findings)} findings in {checked}")
        raise typer.Exit(console.EXIT_ERROR)
    console.say(f"{path}: whole ({checked})")


app.command()(doctor)


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Folder for scans/, labels/ and truth/.")] = Path("cohort"),
    site: Annotated[
        str, typer.Option(help="Whose scans: demo, mild, middle, hard, or a training site; see --sites.")
    ] = "demo",
    cases: Annotated[int, typer.Option(min=1, help="How many people.")] = 9,
    labelled: Annotated[
        int | None, typer.Option(min=0, help="How many get labels/; the others' are in truth/. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the people and the scanner.")] = 0,
    sites: Annotated[bool, typer.Option("--sites", help="List the sites and leave.")] = False,
) -> None:
    """Generate labelled CT scans of people who do not exist, to try everything on."""
    from featcache.phantom import find_site, known_sites, write_cohort

    if sites:
        console.table(
            "", ("site", "what", "structures"), [(s.name, s.about, len(s.annotated)) for s in known_sites()]
        )
        return
    found = find_site(site)
    for part in ("scans", "labels", "truth"):
        if (out / part).exists():
            raise StoreError(
                f"{out / part} is there and is left as it is; choose another --out", path=out / part
            )
    with console.Steps("generate", "scans") as steps:
        names = write_cohort(out, found, cases, labelled=labelled, seed=seed, on_case=steps.update)
    console.say(f"{out}: {len(names)} scans of site {found.name}: {found.about}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
) -> None:
    """Show the main job from end to end on generated scans, with the built-in encoder; about 4 minutes."""
    from cli.demo import run

    run(out)


@encoder.command()
def inspect(model: Model, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show a model's inputs, outputs, strides, channels and card; builtin and builtin-mr are names."""
    from featcache.encoder_tools import probe_model
    from featcache.encoders import model_path
    from featcache.onnxfile import read_card

    model = model_path(model)
    probe = probe_model(model)
    try:
        card: dict[str, Any] | None = read_card(model).to_json()
    except CardError as error:
        card = None
        console.warn(str(error))
    if as_json:
        outputs = [vars(o) for o in probe.outputs]
        console.print_json(
            {"window": probe.window, "dynamic": probe.dynamic, "outputs": outputs, "card": card}
        )
        return
    for tensor in probe.info.inputs:
        console.say(f"input   {tensor.name}  {_shape(tensor.shape)}")
    for tensor in probe.info.outputs:
        console.say(f"output  {tensor.name}  {_shape(tensor.shape)}")
    rows = [(o.name, o.channels, _times(o.stride), o.size) for o in probe.outputs]
    console.table(
        f"Seen on a window of {_times(probe.window)} ({'dynamic' if probe.dynamic else 'fixed'} shape)",
        ("output", "channels", "stride", "size rule"),
        rows,
    )
    if card is not None:
        console.say("card")
        console.print_json(card)


@encoder.command()
def template(
    model: Model,
    out: Annotated[Path | None, typer.Option(help="Default: MODEL.card.json beside the model.")] = None,
) -> None:
    """Write a card with all that the graph tells; FILL IN marks what a person must add."""
    from featcache.encoder_tools import template as make_template
    from featcache.onnxfile import card_path

    target = out or card_path(model)
    if target.exists():
        raise CardError(
            f"{target} exists and is left as it is; choose another --out, or remove it", path=target
        )
    document = make_template(model)
    try:
        target.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise CardError(f"{target} cannot be written: {error}; choose another --out", path=target) from error
    console.say(
        f"{target} written. Replace every 'FILL IN' (docs/encoder-card.md explains them), then run\n"
        f"  featcache encoder attach {model}"
    )


@encoder.command()
def attach(
    model: Model,
    card: Annotated[Path | None, typer.Option(help="Default: MODEL.card.json beside the model.")] = None,
) -> None:
    """Check a card against the model and write it into the ONNX file's metadata.

    Golden values of one window are added, so that every runtime can be checked before it is trusted.
    """
    from featcache.encoder_tools import attach as run_attach
    from featcache.onnxfile import card_path, read_card_file

    source = card or card_path(model)
    if not source.is_file():
        raise CardError(
            f"{source}: no such card; `featcache encoder template {model}` writes one to fill in", path=source
        )
    attached = run_attach(model, read_card_file(source))
    levels = ", ".join(f"{o.name} ({o.channels} channels)" for o in attached.outputs)
    console.say(f"{model}: card of {attached.name!r} attached; levels {levels}")


def _show(described: dict[str, Any]) -> None:
    recipe = described["recipe"]
    console.say(f"store    {described['path']}  ({console.size_text(described['bytes'])})")
    console.say(f"encoder  {described['encoder']['name']}  {described['encoder']['id'][:12]}")
    spacing = "own" if recipe.get("spacing") is None else f"{_times(recipe['spacing'])} mm"
    console.say(
        f"recipe   {recipe['id'][:12]}: spacing {spacing}, {recipe['blending']['kind']} windows of "
        f"{_times(recipe['window'])}, {_computed(recipe)}{recipe['store_precision']}{_precision_of(described)}"
    )
    head = described["head"]
    console.say("head     none" if head is None else f"head     {_head(head)}")
    console.say(f"classes  {', '.join(described['classes']) or 'no labels'}")
    rows = []
    for case in described["cases"]:
        levels = "; ".join(
            f"{n} {level['channels']} x {_times(level['shape'])}" for n, level in case["levels"].items()
        )
        size = sum(level["bytes"] for level in case["levels"].values())
        annotated = ", ".join(str(len(s["annotated"])) for s in case["labels"].values()) or "-"
        scan = f"{_times(case['native']['shape'])} {case['native']['orientation']}"
        lost = stored_error_text([level["stored_error"] for level in case["levels"].values()])
        rows.append((case["id"], scan, levels, console.size_text(size), lost, annotated))
    columns = ("case", "scan", "features", "size", "stored error", "annotated classes")
    console.table(f"{len(rows)} cases", columns, rows)


def _computed(recipe: dict[str, Any]) -> str:
    precision = recipe["compute_precision"]
    return "" if precision == "float32" else f"computed in {precision}, "


def _precision_of(described: dict[str, Any]) -> str:
    """Return what calibrated the integers, and which store they were made of."""
    case, source = described["calibration"], described["recipe"].get("requantised_from")
    calibrated = "" if case is None else f" calibrated on case {case}"
    return calibrated + (
        "" if source is None else f", from {source['store_precision']} ({source['recipe_id'][:12]})"
    )


def _head(head: dict[str, Any]) -> str:
    return f"{len(head['classes'])} classes of level {head['level']} (R² {head['r2']:.6f})"


def _store(path: Path | None) -> Path:
    from featcache.store import FeatureStore

    return path or FeatureStore.find(Path())


def _times(values: Any) -> str:
    return " x ".join(f"{v:g}" for v in values)


def _shape(values: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, values))})"


def main() -> None:
    """Run the program."""
    console.run(app)


if __name__ == "__main__":
    main()
