"""`featcache plan`: what an extraction will take, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
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
    extract_options,
)

if TYPE_CHECKING:
    from featcache.planning import CasePlan, ExtractPlan


def plan(
    model: Encoder,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The store that the extraction would make or go on with.")] = Path(
        "features.zarr"
    ),
    runtime: Runtime = "onnxruntime",
    compute_precision: ComputePrecision = "float32",
    device: EncoderDevice = "auto",
    threads: Threads = None,
    spacing: Spacing = None,
    store_precision: StorePrecision = "float16",
    nan_to: NanTo = None,
    assume_hu: AssumeHu = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Read headers only: an upper bound where the encoder crops to the foreground."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Tell what `extract` would take: windows, bytes on the disk, memory and time, case by case.

    One window is really encoded and stored, to time it and to see how well features compress. Where the encoder
    crops to the foreground, every scan is read; --quick does without. Complete cases do not count. Nothing is
    written at --out.
    """
    from featcache.planning import plan as run_plan

    options = extract_options(
        runtime, compute_precision, device, threads, spacing, store_precision, nan_to, assume_hu
    )
    with console.Steps("plan", "scans") as steps:
        made = run_plan(model, inputs, out, options=options, quick=quick, on_scan=steps.update)
    if as_json:
        console.print_json(made.to_json())
    else:
        _show(made)


def _show(plan: ExtractPlan) -> None:
    rows = [_row(case) for case in plan.cases]
    if len(plan.cases) > 1:
        rows.append(("all", f"{plan.windows}", *_figures(plan.bytes, plan.memory, plan.seconds)))
    console.table("", ("case", "windows", "on the disk", "peak memory", "time"), rows)
    console.say(
        f"{plan.store}: {_count(plan, 'todo')} cases to extract, {_count(plan, 'done')} complete, "
        f"{_count(plan, 'unfit')} that would fail"
    )
    if plan.device:
        console.say(
            f"timed on {plan.device}: a window of {plan.sample} takes {plan.window_seconds:.3g} s; the encoder is "
            f"ready after {plan.start_seconds:.2g} s"
        )
    if plan.upper_bound:
        console.say(
            "windows, bytes and time are upper bounds: headers alone were read, and the encoder crops"
        )
    if plan.fits:
        console.say(f"free on the disk: {console.size_text(plan.free)}, enough")
    else:
        console.warn(
            f"free on the disk: {console.size_text(plan.free)}, {console.size_text(plan.bytes - plan.free)} too "
            "little. Free some space, choose another --out, give fewer scans or a coarser --spacing"
        )
    for case in plan.cases:
        if case.state == "unfit":
            console.warn(f"{case.case} would fail: {case.problem}")


def _row(case: CasePlan) -> tuple[str, ...]:
    if case.state != "todo":
        return (case.case, "complete" if case.state == "done" else "would fail", "-", "-", "-")
    return (case.case, f"{case.windows}", *_figures(case.bytes, case.memory, case.seconds))


def _figures(count: int, memory: int | None, seconds: float) -> tuple[str, str, str]:
    held = "unknown" if memory is None else console.size_text(memory)
    return console.size_text(count), held, console.time_text(seconds)


def _count(plan: ExtractPlan, state: str) -> int:
    return sum(case.state == state for case in plan.cases)
