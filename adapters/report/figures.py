"""The charts of the report: Dice by shots, classes over cases, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adapters.comparison import Comparison
from adapters.report.findings import Findings, class_values
from adapters.report.svg import INK, PAPER, chart, colours, markers, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 300  # of a learning curve
_LARGEST = 40  # inches of a chart


def method_names(found: Findings) -> list[str]:
    """Return the methods of the table, each once."""
    return list(dict.fromkeys(row.method for row in found.rows))


def dice_by_shots(found: Findings) -> str:
    """Return mean Dice over shots as SVG: bars are the folds' deviation, dashed lines need no labels."""
    methods = method_names(found)
    paint, shapes = colours(methods), markers(methods)
    shots = sorted({row.shots for row in found.rows if row.shots})
    place = {count: number for number, count in enumerate(shots)}
    trained = [m for m in methods if any(r.method == m and r.shots for r in found.rows)]
    said = []
    with chart(3.4, "labelled scans (shots)", "mean Dice") as (figure, axes):
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        for row in (row for row in found.rows if not row.shots):
            axes.axhline(row.dice, color=paint[row.method], linestyle=(0, (5, 3)), linewidth=1.6)
            said.append(f"{row.method} {row.dice:.3f} without training")
        for number, method in enumerate(trained):
            rows = [row for row in found.rows if row.method == method and row.shots]
            # Beside each other, so that no bar hides another.
            shift = (number - (len(trained) - 1) / 2) * min(0.07, 0.4 / len(trained))
            axes.errorbar(
                [place[row.shots] + shift for row in rows],
                [row.dice for row in rows],
                [row.spread for row in rows],
                color=paint[method],
                marker=shapes[method],
                markersize=6,
                markeredgecolor=PAPER,
                markeredgewidth=0.8,
                linewidth=1.8,
                elinewidth=1.2,
                capsize=2.5,
            )
            said.append(f"{method} " + ", ".join(f"{row.dice:.3f} at {row.shots}" for row in rows))
        axes.set_xticks(list(place.values()), [str(count) for count in shots])
        axes.set_xlim(-0.4, max(len(shots) - 0.6, 0.4))
        axes.margins(y=0.08)
        return render(figure, "dice", "Mean Dice by number of labelled scans: " + "; ".join(said) + ".")


def class_boxes(comparison: Comparison, found: Findings) -> str:
    """Return each class' Dice over the test cases as SVG, at the most shots: quartiles, range and every case."""
    methods = method_names(found)
    paint = colours(methods)
    columns = [row for row in found.rows if row.shots in (0, found.most)]
    columns.sort(key=lambda row: methods.index(row.method))
    pitch = 0.15 * len(columns) + 0.14
    height = min(0.7 + pitch * len(comparison.classes), _LARGEST)
    said, lowest = [], 1.0
    with chart(height, "Dice of a test case, mean over folds", "") as (figure, axes):
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        for number, name in enumerate(comparison.classes):
            medians = []
            for place, row in enumerate(columns):
                values = np.sort(class_values(comparison.at(row.method, row.shots), name))
                if len(values):
                    lowest = min(lowest, float(values[0]))
                    y = number + ((place + 0.5) / len(columns) - 0.5) * 0.78
                    _box(axes, y, 0.78 / len(columns) * 0.72, values, paint[row.method])
                    medians.append(f"{row.method} {np.median(values):.2f}")
            said.append(f"{name}: " + (", ".join(medians) or "in no case"))
        # A $ in a name is a $.
        axes.set_yticks(range(len(comparison.classes)), comparison.classes, parse_math=False)
        axes.set_ylim(len(comparison.classes) - 0.5, -0.5)
        # Boxes are read by place, not by length: the axis may begin where the cases do.
        axes.set_xlim(np.floor(10 * (lowest + 1e-9)) / 10 - 0.02, 1.02)
        at = f"at {found.most} shots" if found.most else "without training"
        return render(
            figure, "classes", f"Dice by class {at}, medians over test cases. " + "; ".join(said) + "."
        )


def learning_curves(comparison: Comparison, found: Findings) -> str | None:
    """Return the smoothed training loss at the most shots as SVG, mean over folds; None where nothing has steps."""
    methods = method_names(found)
    paint = colours(methods)
    drawn = {}
    for method in methods:
        curves = [run.curve for run in comparison.at(method, found.most) if len(run.curve) > 1]
        if curves:
            drawn[method] = _smooth(curves)
    if not drawn:
        return None
    with chart(3.0, "training step", "training loss") as (figure, axes):
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        for method, (steps, loss) in drawn.items():
            axes.plot(steps, loss, color=paint[method], linewidth=1.8)
            axes.plot(
                steps[-1:], loss[-1:], color=paint[method], marker=markers(methods)[method], markersize=6
            )
        axes.margins(x=0.02)
        said = "; ".join(
            f"{method} from {loss[0]:.2f} to {loss[-1]:.2f} in {steps[-1]} steps"
            for method, (steps, loss) in drawn.items()
        )
        return render(figure, "curves", f"Training loss at {found.most} shots: {said}.")


def _box(axes: Axes, y: float, height: float, values: NDArray[np.float64], colour: str) -> None:
    """Draw one horizontal box: quartiles, whiskers to the last case within 1.5 of their distance, all cases."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    axes.hlines(y, inside[0], inside[-1], color=colour, linewidth=1.1)
    axes.barh(y, high - low, height, left=low, color=colour, alpha=0.28, edgecolor="none")
    axes.barh(y, high - low, height, left=low, color="none", edgecolor=colour, linewidth=1.0)
    axes.vlines(middle, y - height / 2, y + height / 2, color=colour, linewidth=2.2)
    shown = values if len(values) <= 30 else values[(values < inside[0]) | (values > inside[-1])]
    axes.plot(
        shown, np.full(len(shown), y), "o", markersize=2.6, color=INK, alpha=0.55, markeredgewidth=0, zorder=3
    )


def _smooth(curves: Sequence[Sequence[float]]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return steps and the running mean of the folds' mean, up to the shortest fold's end."""
    length = min(len(curve) for curve in curves)
    mean = np.mean([curve[:length] for curve in curves], axis=0)
    width = max(1, length // 40)
    smooth = np.convolve(mean, np.ones(width) / width, "valid")
    kept = np.unique(np.linspace(0, len(smooth) - 1, min(_POINTS, len(smooth))).round().astype(np.int64))
    return kept + width, smooth[kept]
