"""The demo's pictures: one unseen scan with masks, Dice by shots, learning curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Fit = tuple[str, int, str]  # method, shots, name


def save(out: Path, case: str, fits: Sequence[Fit]) -> list[Path]:
    """Draw what the demo's folder holds; the paths come back."""
    drawn = {
        "comparison.png": _comparison(out, case, fits),
        "dice_by_shots.png": _dice_by_shots(out, fits),
        "learning_curves.png": _curves(out, fits),
    }
    for name, figure in drawn.items():
        figure.savefig(out / name, facecolor=figure.get_facecolor())
    return [out / name for name in drawn]


def _comparison(out: Path, case: str, fits: Sequence[Fit]) -> Figure:
    """An axial and a coronal slice: scan, truth, zero-shot, and the adapter with the most shots."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    scan, affine = _canonical(out / "scans" / f"{case}.nii.gz")
    truth, _ = _canonical(out / "truth" / f"{case}.nii.gz")
    names: dict[str, int] = json.loads((out / "truth" / "labels.json").read_text("utf-8"))
    first, last = fits[0], fits[-1]
    panels: list[tuple[str, NDArray[Any] | None]] = [("scan", None), ("truth", truth)]
    for method, shots, name in (first, last):
        values, _ = _canonical(out / "masks" / name / f"{case}.nii.gz")
        own: dict[str, int] = json.loads((out / "masks" / name / "classes.json").read_text("utf-8"))
        same = np.zeros(max(own.values()) + 1, int)
        for key, value in own.items():
            same[value] = names[key]
        dice = json.loads((out / f"{name}.json").read_text("utf-8"))["cases"][case]
        mean = np.mean([row["dice"] for row in dice.values() if row["dice"] is not None])
        panels.append((f"{method}{f', {shots} shots' if shots else ''}: Dice {mean:.2f}", same[values]))
    steps = np.sqrt((affine[:3, :3] ** 2).sum(0))
    inside = truth > 0
    counts = inside.sum((0, 1)), inside.sum((0, 2))
    at = int(counts[0].argmax()), int(counts[1].argmax())
    figure = Figure(figsize=(13, 6.4), dpi=110, facecolor="black")
    colours = {
        value: mpl.colormaps["tab10"](number % 10)
        for number, value in enumerate(sorted(set(names.values()) - {0}))
    }
    for column, (title, mask) in enumerate(panels):
        for row in range(2):
            axes = figure.add_subplot(2, 4, row * 4 + column + 1)
            index = (slice(None), slice(None), at[0]) if row == 0 else (slice(None), at[1], slice(None))
            aspect = steps[1] / steps[0] if row == 0 else steps[2] / steps[0]
            # As radiologists look at it: from the feet or the front, the patient's right on the left.
            axes.imshow(scan[index].T[::-1, ::-1], cmap="gray", vmin=-160, vmax=240, aspect=aspect)
            if mask is not None:
                overlay = np.zeros((*mask[index].T.shape, 4))
                for value, colour in colours.items():
                    shown = (mask[index] == value).T[::-1, ::-1]
                    overlay[shown] = (*colour[:3], 0.55)
                axes.imshow(overlay, aspect=aspect, interpolation="nearest")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title, color="white", fontsize=11)
    handles = [Patch(color=colours[value], label=name) for name, value in names.items() if value]
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False, labelcolor="white", fontsize=9
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    return figure


def _dice_by_shots(out: Path, fits: Sequence[Fit]) -> Figure:
    figure, axes = _chart("labelled scans (shots)", "mean Dice, unseen scans")
    lines: dict[str, list[tuple[int, float]]] = {}
    for method, shots, name in fits:
        report = json.loads((out / f"{name}.json").read_text("utf-8"))
        dice = float(report["summary"]["mean_of_classes"]["dice"])
        if shots:
            lines.setdefault(method, []).append((shots, dice))
        else:
            axes.axhline(dice, color="gray", linestyle="--", label=method)
    for method, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=method)
    axes.set_xticks(sorted({shots for _, shots, _ in fits if shots}))
    axes.legend()
    return figure


def _curves(out: Path, fits: Sequence[Fit]) -> Figure:
    from adapters.checkpoint import CONFIG

    figure, axes = _chart("training step", "training loss")
    for method, shots, name in fits:
        curve = np.array(json.loads((out / "adapters" / name / CONFIG).read_text("utf-8"))["curve"])
        if len(curve) < 2:
            continue
        width = max(1, len(curve) // 40)
        smooth = np.convolve(curve, np.ones(width) / width, "valid")
        axes.plot(np.arange(len(smooth)) + width, smooth, label=f"{method}, {shots} shots")
    axes.legend()
    return figure


def _chart(x: str, y: str) -> tuple[Figure, Axes]:
    """An empty line chart with its axes named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), dpi=110, layout="tight")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def _canonical(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj), np.asarray(image.affine)
