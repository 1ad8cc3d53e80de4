"""Truth and prediction as outlines on three slices, lying as radiologists look at them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.features import FeatureVolume
from adapters.interpolate import interpolate, source_positions
from adapters.preview import busiest, class_colour, feature_plane, finest, legend, outline, paint
from featcache.geometry import Box, Grid, Triple, apply_reorientation, axis_map, reorient, spacing
from featcache.store import Case

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DISPLAY = "LPI"
"""Columns to the left or to the back, rows to the back or to the feet: the patient's right is on the left."""
_EDGES = {0: ("A", "P", "S", "I"), 1: ("R", "L", "S", "I"), 2: ("R", "L", "A", "P")}
_NAMES = {0: "sagittal", 1: "coronal", 2: "axial"}
_MARGIN_MM = 25.0
_HU = (-160.0, 240.0)
_INCHES = 11.0
_TRUTH = {"linewidths": 3.2, "alpha": 0.6}
_PREDICTION = {"linewidths": 1.3, "linestyles": "dashed"}
_MUTED = 0.62  # of the features' brightness, so that outlines stand out


@dataclass(frozen=True)
class Scene:
    """What is drawn of a case.

    Parameters
    ----------
    case : featcache.store.Case
    truth, predicted : ndarray of int, shape (X, Y, Z)
        Values of `classes`, on the scan's own grid.
    classes : dict of str to int
    image : ndarray, shape (X, Y, Z), optional
        The scan, on its own grid; the features are drawn if not given.
    """

    case: Case
    truth: NDArray[Any]
    predicted: NDArray[Any]
    classes: dict[str, int]
    image: NDArray[Any] | None


def draw(scene: Scene, levels: list[str]) -> bytes:
    """Return a PNG: axial, coronal and sagittal slices through the largest extent of the truth.

    Parameters
    ----------
    scene : Scene
    levels : list of str
        Levels that the adapter reads; the colours are those of the finest alone.
    """
    from matplotlib.figure import Figure

    grid, turn = reorient(scene.case.info.native, _DISPLAY)
    truth, predicted = (apply_reorientation(m, turn) for m in (scene.truth, scene.predicted))
    centre = busiest(truth if truth.any() else predicted)
    box = _around((truth > 0) | (predicted > 0), spacing(grid))
    if scene.image is None:
        planes = _feature_colours(scene.case, levels, grid, centre, box)
    else:
        planes = _greys(apply_reorientation(scene.image, turn), scene.case.info.unit, centre, box)
    step = spacing(grid)
    sizes = [(b - a) * mm for (a, b), mm in zip(box, step, strict=True)]
    widths, heights = [sizes[0], sizes[0], sizes[1]], [sizes[1], sizes[2], sizes[2]]
    tall = float(np.clip(_INCHES * max(heights) / sum(widths), 1.5, 8.0)) + 0.85
    figure = Figure(figsize=(_INCHES, tall), dpi=110, facecolor="black")
    spots = figure.add_gridspec(
        1, 3, width_ratios=widths, wspace=0.03, left=0.01, right=0.99, top=1 - 0.28 / tall, bottom=0.55 / tall
    )
    for column, axis in enumerate((2, 1, 0)):
        axes = figure.add_subplot(spots[column])
        a, b = (n for n in range(3) if n != axis)
        axes.imshow(np.swapaxes(planes[axis], 0, 1), aspect=step[b] / step[a], interpolation="nearest")
        cut = tuple(centre[n] if n == axis else slice(*box[n]) for n in range(3))
        _outlines(axes, truth[cut].T, predicted[cut].T, scene.classes)
        _letters(axes, axis)
    shown = {n: v for n, v in scene.classes.items() if (truth == v).any() or (predicted == v).any()}
    _legend(figure, shown)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="black", metadata={"Software": None})
    return buffer.getvalue()


def _around(inside: NDArray[np.bool_], step: Sequence[float]) -> Box:
    """Return the box of the mask with a margin; the whole of an empty one."""
    bounds = []
    for axis, mm in enumerate(step):
        found = np.flatnonzero(inside.any(tuple(o for o in range(3) if o != axis)))
        first, last = (found[0], found[-1]) if len(found) else (0, inside.shape[axis] - 1)
        margin = round(_MARGIN_MM / mm)
        bounds.append((max(int(first) - margin, 0), min(int(last) + 1 + margin, inside.shape[axis])))
    return bounds[0], bounds[1], bounds[2]


def _greys(image: NDArray[Any], unit: str, centre: Triple, box: Box) -> list[NDArray[Any]]:
    """Return one slice an axis, 0 to 1, grey as colours: the soft tissue window in HU, else percentiles."""
    planes = []
    for axis in range(3):
        cut = tuple(centre[n] if n == axis else slice(*box[n]) for n in range(3))
        planes.append(np.asarray(image[cut], np.float32))
    joined = np.concatenate([plane.ravel() for plane in planes])
    low, high = _HU if unit == "HU" else np.percentile(joined, (1, 99))
    grey = [np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1) for plane in planes]
    return [np.repeat(plane[..., None], 3, -1) for plane in grey]


def _feature_colours(
    case: Case, levels: list[str], grid: Grid, centre: Triple, box: Box
) -> list[NDArray[Any]]:
    """Return one slice an axis of `grid`, colours 0 to 1, black where there are no features."""
    volume = FeatureVolume(case, finest(case, levels))
    step = axis_map(volume.grid, grid)
    places, painted = [], []
    for axis in range(3):
        start = [centre[n] if n == axis else box[n][0] for n in range(3)]
        size = [1 if n == axis else box[n][1] - box[n][0] for n in range(3)]
        positions, axes = source_positions(step, start, size)
        across = axes[axis]
        index = int(np.clip(np.rint(positions[across][0]), 0, volume.grid.shape[across] - 1))
        places.append((positions, axes, across))
        painted.append(feature_plane(volume, across, index))
    planes = []
    for axis, (colours, (positions, axes, across)) in enumerate(zip(paint(painted), places, strict=True)):
        plane = torch.from_numpy(np.expand_dims(colours, across)).permute(3, 0, 1, 2)
        where = [np.zeros(1) if n == across else positions[n] for n in range(3)]
        outside = [
            (p < -0.5) | (p > size - 0.5) for p, size in zip(positions, volume.grid.shape, strict=True)
        ]
        values = interpolate(plane, where).numpy() * _MUTED
        for n, beyond in enumerate(outside):
            values[(slice(None),) * (n + 1) + (beyond,)] = 0
        turned = values.transpose(0, *(1 + n for n in axes))
        planes.append(np.moveaxis(np.take(turned, 0, 1 + axis), 0, -1))
    return planes


def _outlines(axes: Axes, truth: NDArray[Any], predicted: NDArray[Any], classes: dict[str, int]) -> None:
    """Draw the truth as broad, faint lines and the prediction as thin dashed ones, which show on top of them."""
    outline(axes, truth, classes.values(), **_TRUTH)
    outline(axes, predicted, classes.values(), **_PREDICTION)


def _letters(axes: Axes, axis: int) -> None:
    left, _, top, _ = _EDGES[axis]
    style: Any = {"color": "white", "fontsize": 8, "transform": axes.transAxes, "alpha": 0.85}
    axes.text(0.01, 0.5, left, ha="left", va="center", **style)
    axes.text(0.5, 0.99, top, ha="center", va="top", **style)
    axes.set_title(_NAMES[axis], color="white", fontsize=8, alpha=0.85, pad=4)
    axes.set_anchor("N")
    axes.set_axis_off()


def _legend(figure: Figure, shown: dict[str, int]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color="white", linewidth=3.2, alpha=0.6, label="truth"),
        Line2D([], [], color="white", linewidth=1.3, linestyle="dashed", label="prediction"),
        *(Line2D([], [], color=class_colour(v), linewidth=2.2, label=n) for n, v in shown.items()),
    ]
    legend(figure, handles)
