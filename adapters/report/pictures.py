"""The best, the median and the worst test case of a run, as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adapters.comparison import Run
from featcache.errors import GeometryError, TaskError
from featcache.geometry import Grid, axis_codes, corner_distance

if TYPE_CHECKING:
    from adapters.segmenter import FittedSegmenter
    from adapters.task import Task
    from featcache.store import Case, FeatureStore


@dataclass(frozen=True)
class CasePicture:
    """One test case, drawn.

    Parameters
    ----------
    rank : str
        "best", "median", "worst", or "only".
    case : str
    dice : float
        The case's Dice, mean over its classes.
    run : str
        What was drawn: method, shots and fold, for people.
    background : str
        What lies under the outlines.
    png : bytes
    """

    rank: str
    case: str
    dice: float
    run: str
    background: str
    png: bytes


def case_pictures(
    fitted: FittedSegmenter,
    store: FeatureStore,
    run: Run,
    *,
    images: Path | None = None,
    task: Task | None = None,
) -> tuple[CasePicture, ...]:
    """Return pictures of the best, the median and the worst test case of `run`, by case Dice.

    Parameters
    ----------
    fitted : FittedSegmenter
        What the run fitted.
    store : FeatureStore
    run : Run
    images : Path, optional
        Folder of the scans, <case>.nii.gz or <case>.nii, to draw on; the features' principal components if not given.
    task : Task, optional
        The classes of the truth; those that `fitted` learned if not given, which may be fewer.

    Raises
    ------
    TaskError
        If a scan is not there, or a case has no labels.
    GeometryError
        If a scan lies on another grid than the labels.
    AdapterMismatchError
        If the store is another encoder's.
    """
    fitted.check(store)
    task = task or fitted.adapter.task
    about = (
        f"{run.method}, {run.shots} {'shot' if run.shots == 1 else 'shots'}, fold {run.fold}"
        if run.shots
        else f"{run.method}, fold {run.fold}"
    )
    pictures = []
    for rank, name, dice in _ranked(run):
        case = store.case(name)
        png = _draw(case, fitted, task, None if images is None else read_image(images, case))
        background = (
            "the features, their first three principal components as colours"
            if images is None
            else "the scan"
        )
        pictures.append(CasePicture(rank, name, dice, about, background, png))
    return tuple(pictures)


def read_image(folder: Path, case: Case) -> NDArray[Any]:
    """Return a case's scan, (X, Y, Z), on the grid of its labels.

    Raises
    ------
    TaskError
        If there is none in the folder.
    GeometryError
        If it lies on another grid.
    """
    from featcache.scans.nifti import load_nifti

    paths = [folder / f"{case.id}{ending}" for ending in (".nii.gz", ".nii")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise TaskError(
            f"--images {folder}: found neither {paths[0].name} nor {paths[1].name}; expected the scan of each test "
            "case under its id. Leave --images out to draw on the features",
            path=folder,
            case=case.id,
        )
    volume = load_nifti(path, nan_to=0.0)
    _check_grid(path, volume.grid, case)
    return volume.voxels


def _check_grid(path: Path, grid: Grid, case: Case) -> None:
    native = case.info.native
    advice = (
        "expected the scan that the features were extracted from; leave --images out to draw on the features"
    )
    if grid.shape != native.shape:
        raise GeometryError(
            f"{path} has the shape {grid.shape}, the labels of case {case.id} have {native.shape}; {advice}",
            path=path,
            case=case.id,
        )
    distance = corner_distance(grid, native)
    if distance > 0.1:
        raise GeometryError(
            f"{path} ({axis_codes(grid)}) and the labels of case {case.id} ({axis_codes(native)}), both of shape "
            f"{grid.shape}, lie {distance:.2f} voxels apart; {advice}",
            path=path,
            case=case.id,
        )


def _ranked(run: Run) -> list[tuple[str, str, float]]:
    """Return rank, case and Dice of the cases to draw; equal ones in the order of their names."""
    order = sorted(run.case_dice().items(), key=lambda item: (-item[1], item[0]))
    if len(order) == 1:
        return [("only", *order[0])]
    chosen = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}
    if len(order) == 2:
        del chosen["median"]
    return [(rank, *order[place]) for rank, place in chosen.items()] if order else []


def _draw(case: Case, fitted: FittedSegmenter, task: Task, image: NDArray[Any] | None) -> bytes:
    """Return the PNG of one case."""
    from adapters.labels import CaseLabels
    from adapters.report.overlay import Scene, draw

    truth = CaseLabels(case, task, case.info.native).values
    result = fitted.predict(case)
    table = np.zeros(max(result.classes.values(), default=0) + 1, truth.dtype)
    for name, value in result.classes.items():
        table[value] = task.values.get(name, 0)
    scene = Scene(case, truth, table[result.values], task.values, image)
    return draw(scene, list(fitted.adapter.channels))
