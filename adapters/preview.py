"""A picture of a prediction without the scan: its features as colours, the mask as outlines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.features import FeatureVolume
from adapters.inference import Segmentation
from adapters.interpolate import source_positions
from featcache.errors import StoreError
from featcache.geometry import Triple, axis_map, spacing
from featcache.store import Case

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's colours, the dark ones made lighter: bright on scans and features, told apart by everyone.
_COLOURS = ("#56B4E9", "#E69F00", "#F0E442", "#2FD6A0", "#FF7A45", "#F29AC6", "#A6A1FF", "#FFFFFF")
_DRAWN = 20_000  # voxels from which the principal components are taken


def save_preview(path: Path, case: Case, levels: list[str], result: Segmentation) -> None:
    """Write a PNG of three slices through the largest extent of the mask.

    The first three principal components of the features are red, green and blue, each from its 1st to its 99th
    percentile; every class of the mask is outlined.

    Parameters
    ----------
    path : Path
        The PNG to write.
    case : featcache.store.Case
    levels : list of str
        Levels that the adapter reads; the colours are those of the finest alone.
    result : Segmentation

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    volume = FeatureVolume(case, finest(case, levels))
    mask = _on_features(volume, result)
    centre = busiest(mask)
    names = {value: name for name, value in result.classes.items()}
    figure = Figure(figsize=(12, 4.6), dpi=110, facecolor="black")
    steps = spacing(volume.grid)
    painted = paint([feature_plane(volume, axis, centre[axis]) for axis in range(3)])
    for axis, (picture, title) in enumerate(zip(painted, "XYZ", strict=True)):
        axes = figure.add_subplot(1, 3, axis + 1)
        a, b = (n for n in range(3) if n != axis)
        axes.imshow(
            picture.transpose(1, 0, 2), origin="lower", aspect=steps[b] / steps[a], interpolation="nearest"
        )
        outline(axes, np.take(mask, centre[axis], axis).T, names, linewidths=1.3)
        axes.set_title(f"{title} = {centre[axis]}", color="white", fontsize=9)
        axes.set_axis_off()
    lines = [Line2D([], [], color=class_colour(value), label=name) for value, name in names.items()]
    legend(figure, lines)
    figure.suptitle(f"{case.id}: features as colours, prediction outlined", color="white", fontsize=10)
    try:
        figure.savefig(path, facecolor="black")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StoreError(f"{path}: the picture could not be written: {error}", path=path) from error


def legend(figure: Figure, lines: Sequence[Line2D]) -> None:
    """Name `lines` below the pictures, as they are spelled; more than 40 would hide them, and are left out."""
    if len(lines) > 40:
        return
    drawn = figure.legend(
        handles=list(lines),
        loc="lower center",
        ncols=min(len(lines), 8),
        frameon=False,
        labelcolor="white",
        fontsize=8,
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)


def finest(case: Case, levels: list[str]) -> list[str]:
    """Return the one of `levels` with the smallest voxels, in a list."""
    return [min(levels, key=lambda name: float(np.prod(spacing(case.level(name).grid))))]


def class_colour(value: int) -> tuple[float, float, float]:
    """Return red, green and blue, 0 to 1, of a class value from 1."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgb

    if value <= len(_COLOURS):
        return to_rgb(_COLOURS[value - 1])
    r, g, b, _ = mpl.colormaps["tab20"]((value - 1 - len(_COLOURS)) % 20)
    return float(r), float(g), float(b)


def outline(axes: Axes, plane: NDArray[Any], values: Iterable[int], **style: Any) -> None:
    """Draw the border of each value that occurs in `plane`, each in its class' colour.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Holds the picture already; its limits stay.
    plane : ndarray of int, shape (rows, columns)
    values : iterable of int
    **style
        As `Axes.contour` takes it.
    """
    # A frame of background closes outlines at the border, and lets a plane of one row be drawn.
    framed = np.pad(plane, 1)
    rows, columns = (np.arange(-1, n + 1) for n in plane.shape)
    axes.autoscale(False)
    for value in values:
        if (plane == value).any():
            axes.contour(columns, rows, framed == value, levels=[0.5], colors=[class_colour(value)], **style)


def _on_features(volume: FeatureVolume, result: Segmentation) -> NDArray[Any]:
    """Return the mask at the feature voxels' centres."""
    step = axis_map(result.grid, volume.grid)
    positions, axes = source_positions(step, (0, 0, 0), volume.grid.shape)
    index = [
        np.clip(np.rint(p), 0, n - 1).astype(np.int64)
        for p, n in zip(positions, result.values.shape, strict=True)
    ]
    mask: NDArray[Any] = result.values[np.ix_(*index)].transpose(axes)
    return mask


def busiest(mask: NDArray[Any]) -> Triple:
    """Return, per axis, the slice with the most of the mask; the middle of an empty one."""
    inside = mask > 0
    if not inside.any():
        return mask.shape[0] // 2, mask.shape[1] // 2, mask.shape[2] // 2
    x, y, z = (int(inside.sum(tuple(o for o in range(3) if o != a)).argmax()) for a in range(3))
    return x, y, z


def feature_plane(volume: FeatureVolume, axis: int, index: int) -> NDArray[np.float32]:
    """Return the features of one slice, (a, b, C)."""
    start, size = [0, 0, 0], list(volume.grid.shape)
    start[axis], size[axis] = index, 1
    values: NDArray[np.float32] = np.moveaxis(volume.read(start, size).numpy(), 0, -1)
    plane: NDArray[np.float32] = np.take(values, 0, axis)
    return plane


def paint(slices: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return features as colours: principal components 1 to 3 of all slices together, from percentile 1 to 99.

    Parameters
    ----------
    slices : list of ndarray, shape (a, b, C), float32

    Returns
    -------
    list of ndarray, shape (a, b, 3), float32
        Red, green and blue, 0 to 1.
    """
    rows = torch.from_numpy(np.concatenate([s.reshape(-1, s.shape[-1]) for s in slices]))
    drawn = rows[torch.linspace(0, len(rows) - 1, min(_DRAWN, len(rows))).long()]
    mean, deviation = drawn.mean(0), drawn.std(0).clamp(min=1e-6)
    standard = (drawn - mean) / deviation
    _, vectors = torch.linalg.eigh(standard.T @ standard)
    directions = vectors[:, -3:].flip(1)
    drawn_colours = standard @ directions
    low, high = drawn_colours.quantile(0.01, dim=0), drawn_colours.quantile(0.99, dim=0)
    painted = []
    for part in slices:
        values = ((torch.from_numpy(part) - mean) / deviation) @ directions
        picture = ((values - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).numpy()
        missing = 3 - picture.shape[-1]
        painted.append(np.pad(picture, ((0, 0), (0, 0), (0, max(missing, 0)))))
    return painted
