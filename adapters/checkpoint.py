"""An adapter on disk: adapter_config.json + adapter_model.safetensors, bound to its encoder."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from adapters.methods import get_method
from adapters.model import Adapter, HeadRows
from adapters.task import Task
from featcache.errors import AdapterMismatchError, StoreError, TaskError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class AdapterInfo:
    """What is known of an adapter besides its weights.

    Parameters
    ----------
    method : str
    encoder_id, recipe_id : str
        The encoder it belongs to, and the recipe of the features it was trained on.
    encoder_name : str
        For messages.
    support : tuple of str
        Cases it was trained on.
    seed : int
    recipe : dict or None
        Numbers of the training.
    curve : tuple of float
        Loss of each step.
    trainable : int
        Parameters that were trained.
    seconds : float
        Time that the fit took.
    software : str
    features : dict or None
        The recipe of the features, as their store tells it; None in adapters of former versions.
    """

    method: str
    encoder_id: str
    recipe_id: str
    encoder_name: str
    support: tuple[str, ...]
    seed: int
    recipe: dict[str, Any] | None
    curve: tuple[float, ...]
    trainable: int
    seconds: float
    software: str
    features: dict[str, Any] | None = None


def save_adapter(folder: Path, adapter: Adapter, info: AdapterInfo) -> None:
    """Write an adapter to the new folder `folder`, which appears only when it is whole.

    Raises
    ------
    AdapterMismatchError
        If `folder` exists: nothing is overwritten.
    StoreError
        If it cannot be written; nothing is left then.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    refuse_existing(folder)
    part = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        tensors = {name: t.detach().contiguous() for name, t in adapter.state_dict().items()}
        save_file(tensors, part / WEIGHTS)
        config = {
            "format": "featcache.adapter",
            "format_version": FORMAT_VERSION,
            "task": adapter.task.to_json(),
            "groups": list(adapter.groups),
            "channels": [[name, count] for name, count in adapter.channels.items()],
            "weights_sha256": hashlib.sha256((part / WEIGHTS).read_bytes()).hexdigest(),
            **asdict(info),
        }
        (part / CONFIG).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", "utf-8")
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"--out {folder} could not be written: {error}; free some space or choose another folder",
            path=folder,
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def refuse_existing(folder: Path) -> None:
    """Raise AdapterMismatchError if `folder` exists."""
    if folder.exists():
        raise AdapterMismatchError(
            f"--out {folder} exists; adapters are never overwritten. Choose another name, or remove it first",
            path=folder,
        )


def load_adapter(folder: Path | str) -> tuple[Adapter, AdapterInfo]:
    """Return the adapter in `folder`, checked.

    Raises
    ------
    AdapterMismatchError
        If the folder is no adapter, is damaged, or needs a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    config = _config(folder)
    try:
        data = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != config["weights_sha256"]:
            raise AdapterMismatchError(
                f"{folder / WEIGHTS} differs from what {CONFIG} records: the adapter is damaged or mixed from two; "
                "copy or train it again",
                path=folder,
            )
        tensors = load(data)
        adapter = _rebuild(config, tensors)
        fields = {n: config[n] for n in AdapterInfo.__dataclass_fields__ if n in config}
        info = AdapterInfo(**fields | {"support": tuple(fields["support"]), "curve": tuple(fields["curve"])})
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError, TaskError) as error:
        raise AdapterMismatchError(f"{folder}: the adapter is damaged: {error!r}", path=folder) from error
    return adapter, info


def check_encoder(info: AdapterInfo, encoder_id: str, encoder_name: str, where: Path) -> None:
    """Raise AdapterMismatchError unless the store at `where` holds features of the adapter's encoder."""
    if info.encoder_id != encoder_id:
        raise AdapterMismatchError(
            f"{where} holds features of encoder {encoder_name!r} ({encoder_id[:12]}); the adapter was trained on "
            f"{info.encoder_name!r} ({info.encoder_id[:12]}). Extract the scans with that model and card, or "
            "train an adapter on this store",
            path=where,
        )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        found = config.get("format"), config.get("format_version")
    except (OSError, ValueError, AttributeError) as error:
        raise AdapterMismatchError(
            f"{folder}: no adapter here ({error}); expected a folder that `adapters train --out` made, with "
            f"{CONFIG} and {WEIGHTS}",
            path=folder,
        ) from error
    if found != ("featcache.adapter", FORMAT_VERSION):
        raise AdapterMismatchError(
            f"{folder / CONFIG}: found format {found}; expected ('featcache.adapter', {FORMAT_VERSION}). A newer "
            "adapter needs a newer featcache",
            path=folder,
        )
    return dict(config)


def _rebuild(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Adapter:
    task = Task.from_json(config["task"])
    method = get_method(config["method"])
    channels = {str(name): int(count) for name, count in config["channels"]}
    groups = tuple(config["groups"])
    weights = tensors["head.weight"].flatten(1)
    wide = weights if method.residual is None else tensors["rest"]
    if wide.shape != (len(groups), sum(channels.values())):
        raise ValueError(f"weights of shape {tuple(wide.shape)} for {len(groups)} rows of {channels}")
    if method.residual is None:
        adapter = Adapter(task, HeadRows(weights, tensors["head.bias"], groups), channels)
    else:
        adapter = Adapter(
            task,
            HeadRows(tensors["rest"], tensors["rest_bias"], groups),
            channels,
            projection=(tensors["projection"], tensors["projection_bias"]),
            start=weights,
            residual=method.residual(weights.shape[1]),
            radius=method.radius,
            positions=method.positions,
        )
    adapter.load_state_dict(tensors)
    return adapter.eval()
