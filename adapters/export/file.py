"""What both kinds of export share: the description in the file, and writing that is checked before it counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.checkpoint import AdapterInfo
from adapters.export.adapter_graph import PLACE, LevelTensor, finest
from adapters.export.check import Place
from adapters.model import Adapter
from featcache import __version__
from featcache.errors import StoreError
from featcache.geometry import Triple

if TYPE_CHECKING:
    import onnx

ADAPTER_KEY = "featcache.adapter"
"""Key of the JSON document in the file's metadata that says what the logits are."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    path : Path
    data : Path or None
        The file beside it that holds the weights, where one file cannot.
    difference : float
        Largest difference from the torch adapter's logits on one random window, relative to the largest logit
        (to 1 where that is smaller).
    opset : int
    description : dict
        The JSON document under `ADAPTER_KEY`.
    """

    path: Path
    data: Path | None
    difference: float
    opset: int
    description: dict[str, Any]


def random_place(shape: Triple) -> Place:
    """Return a place inside a larger scan, other numbers along every axis."""
    x, y, z = (2 * n + extra for n, extra in zip(shape, (3, 10, 29), strict=True))
    return Place((1, 4, 9), (x, y, z))


def place_input(adapter: Adapter) -> list[onnx.ValueInfoProto]:
    """Return the input `PLACE`, int64 (2, 3), of an adapter with positions."""
    from onnx import TensorProto, helper

    return [helper.make_tensor_value_info(PLACE, TensorProto.INT64, [2, 3])] if adapter.positions else []


def describe(
    adapter: Adapter, info: AdapterInfo, levels: Mapping[str, LevelTensor], axes: str, *, placed: bool = True
) -> dict[str, Any]:
    """Return what a program that runs the file has to know, as JSON values.

    Parameters
    ----------
    axes : str
        Directions of the graph's axes, for people and programs.
    placed : bool
        Whether strides and offsets are known.
    """
    task, fine = adapter.task, finest(levels)
    inputs = [
        {"name": name, "channels": adapter.channels[name]}
        | ({"stride": list(level.stride), "offset": list(level.offset)} if placed else {})
        for name, level in levels.items()
    ]
    return {
        "format": ADAPTER_KEY,
        "format_version": 1,
        "classes": list(task.names) if task.binary else ["background", *task.names],
        "values": task.values,
        "activation": "sigmoid" if task.binary else "softmax",
        "method": info.method,
        "encoder_id": info.encoder_id,
        "encoder_name": info.encoder_name,
        "recipe_id": info.recipe_id,
        "levels": inputs,
        "grid": fine,
        "axes": axes,
        "positions": adapter.positions,
        "software": f"featcache {__version__}",
    }


def set_metadata(model: onnx.ModelProto, documents: Mapping[str, str]) -> None:
    """Add `documents` to the model's metadata, in place of earlier ones of the same keys."""
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    for key, value in {**kept, **documents}.items():
        model.metadata_props.add(key=key, value=value)


def publish(model: onnx.ModelProto, out: Path, *, external: bool, check: Callable[[Path], float]) -> float:
    """Write `model`, check it, and give it its name only then; return what `check` returned."""
    import onnx

    part = out.with_name(f".{out.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    data = f"{out.name}.data"
    try:
        part.mkdir(parents=True)
        onnx.save(model, part / out.name, save_as_external_data=external, location=data if external else None)
        worst = check(part / out.name)
        if external:
            (part / data).rename(out.with_name(data))
        (part / out.name).rename(out)
    except OSError as error:
        raise StoreError(
            f"--out {out} could not be written: {error}; free some space or choose another place", path=out
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return worst
