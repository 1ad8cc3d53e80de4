"""Checkpoint -> the two files that ship: `python -m benchmarks.pretraining.export --work DIR`.

Both hold the same network; the card of `builtin-mr` scales percentiles to the network's soft-tissue window.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from featcache.card import Blending, EncoderCard, EncoderInput, Head, Intensity, Output
from featcache.encoder_tools import attach
from featcache.encoders import model_path
from featcache.onnxfile import read_card

from . import data
from .classes import CLASSES
from .network import FEATURES, HIGH_HU, LOW_HU, WIDTHS, WINDOWS_HU, Encoder

TARGET = Path(__file__).parents[2] / "featcache" / "encoders"
LEVELS = ("features", "features_s2", "features_s4")
_MULTIPLE = 2 ** (len(WIDTHS) - 1)


def load_encoder(work: Path) -> Encoder:
    """The averaged weights of a checkpoint."""
    state = torch.load(work / "checkpoint.pt", weights_only=True)["average"]
    encoder = Encoder(len(CLASSES))
    encoder.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    )
    return encoder.eval()


def shipped() -> Encoder:
    """The network that ships: weights from its ONNX file, the head from its card."""
    path = model_path("builtin")
    head = read_card(path).head
    assert head is not None
    graph = onnx.load(path).graph
    stored = {t.name.removeprefix("encoder."): numpy_helper.to_array(t) for t in graph.initializer}
    rows = np.array(head.weights, np.float32)
    stored |= {"head.weight": rows[:, :, None, None, None], "head.bias": np.array(head.bias, np.float32)}
    encoder = Encoder(len(head.classes))
    encoder.load_state_dict({name: torch.from_numpy(stored[name].copy()) for name in encoder.state_dict()})
    return encoder.eval()


class _Features(torch.nn.Module):
    """What ships: the levels; the head stands in the card, as weights."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.encoder.features(image)


def card(name: str, encoder: Encoder, classes: tuple[str, ...] = CLASSES) -> EncoderCard:
    """The card of "builtin" or "builtin-mr"."""
    weights = encoder.head.weight.detach()[:, :, 0, 0, 0].double().tolist()
    bias = encoder.head.bias.detach().double().tolist()  # type: ignore[union-attr]
    preparation, modality = data.PREPARATION, "CT"
    if name == "builtin-mr":
        low, high = ((hu - LOW_HU) / (HIGH_HU - LOW_HU) for hu in WINDOWS_HU[1])
        intensity = Intensity(kind="percentile", low=1.0, high=99.0, output=(round(low, 6), round(high, 6)))
        preparation = dataclasses.replace(
            preparation, intensity=intensity, crop=None, pad_value=round(low, 6)
        )
        modality = "MR"
    return EncoderCard(
        name=f"featcache-{name}",
        version="2",
        licence="MIT",
        modality=modality,  # type: ignore[arg-type]
        input=EncoderInput(name="image", window=(96, 96, 96), dynamic=True, multiple=(_MULTIPLE,) * 3),
        preparation=preparation,
        blending=Blending(kind="gaussian", overlap=0.25),
        outputs=tuple(
            Output(
                name=level, channels=channels, stride=(stride,) * 3, offset=(0.0,) * 3, default=stride == 1
            )
            for level, channels, stride in zip(
                LEVELS, (FEATURES, WIDTHS[1], WIDTHS[2]), (1, 2, 4), strict=True
            )
        ),
        head=Head(
            level=LEVELS[0],
            classes=classes,
            weights=tuple(tuple(round(value, 6) for value in row) for row in weights),
            bias=tuple(round(value, 6) for value in bias),
        ),
    )


def export(encoder: Encoder, path: Path) -> None:
    """Write the network as ONNX with dynamic sizes."""
    names = list(LEVELS)
    axes = {2: "x", 3: "y", 4: "z"}
    torch.onnx.export(
        _Features(encoder).eval(),
        (torch.rand(1, 1, 32, 32, 32),),
        path,
        input_names=["image"],
        output_names=names,
        opset_version=17,
        dynamo=False,
        dynamic_axes={name: {k: f"{name}_{v}" for k, v in axes.items()} for name in ["image", *names]},
    )


def export_random(path: Path) -> Path:
    """Write the network as it was before its training, behind the same card."""
    torch.manual_seed(data.SEED)
    encoder = Encoder(len(CLASSES)).eval()
    export(encoder, path)
    attach(path, dataclasses.replace(card("builtin", encoder), name="featcache-random"))
    return path


def main() -> None:
    """Export both files, checked against their cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    encoder = load_encoder(options.work)
    for name in ("builtin", "builtin-mr"):
        path = options.out / f"{name}.onnx"
        export(encoder, path)
        attach(path, card(name, encoder))
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
