"""The encoder card: what a frozen encoder expects and what it yields.

A card is a JSON document that travels in the ONNX file's ``metadata_props`` under ``featcache.card`` (or
beside it as ``<model>.card.json``). Without it nobody can know the orientation, spacing, intensity range
and voxel positions that the encoder was trained with, and a wrong guess is silent. docs/encoder-card.md
lists every field with examples.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from featcache.errors import CardError, GeometryError
from featcache.geometry import FloatTriple, SizeRule, Triple, check_axis_codes

METADATA_KEY = "featcache.card"
CARD_VERSION = 1
GOLDEN_VALUES = 16
FILL_IN = "FILL IN"
"""A template marks what only a person can know with a text that begins so."""

Modality = Literal["CT", "MR"]


def _require(condition: bool, field: str, expected: str, found: object) -> None:
    if not condition:
        raise CardError(f"encoder card, {field}: expected {expected}, found {found!r}")


@dataclass(frozen=True)
class Intensity:
    """How voxel values become network input: mapped linearly from [low, high] to `output`, and clipped.

    Parameters
    ----------
    kind : {"window", "percentile", "zscore", "none"}
        ``window``: `low` and `high` are values in the scan's unit (HU for CT). ``percentile``: they are
        percentiles of the whole scan. ``zscore``: mean 0 and standard deviation 1 over the whole scan,
        then clipped to [low, high]. ``none``: values as they are.
    low, high : float
        See `kind`.
    output : tuple of 2 float
        Where `low` and `high` go.
    """

    kind: Literal["window", "percentile", "zscore", "none"]
    low: float = 0.0
    high: float = 0.0
    output: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        kinds = ("window", "percentile", "zscore", "none")
        _require(self.kind in kinds, "preparation.intensity.kind", " or ".join(kinds), self.kind)
        if self.kind != "none":
            _require(self.low < self.high, "preparation.intensity", "low < high", (self.low, self.high))
        if self.kind == "percentile":
            _require(
                self.low >= 0 and self.high <= 100,
                "preparation.intensity",
                "percentiles from 0 to 100",
                (self.low, self.high),
            )


@dataclass(frozen=True)
class Crop:
    """Keep the bounding box of voxels brighter than `above` (scan's unit), widened by `margin` mm."""

    above: float
    margin: float = 0.0

    def __post_init__(self) -> None:
        _require(self.margin >= 0, "preparation.crop.margin", "0 or more mm", self.margin)


@dataclass(frozen=True)
class Preparation:
    """The steps from a scan to the encoder's input, in this order: reorient, crop, resample, scale, pad.

    Parameters
    ----------
    orientation : str
        Directions of the array axes, such as "RAS" or "LIA".
    spacing : tuple of 3 float or None
        Spacing in mm along the oriented axes, None for the scan's own.
    intensity : Intensity
        Applied after resampling; percentiles and z-scores are taken over the whole scan before cropping.
    crop : Crop or None
        Foreground box, found on the scan's own voxels.
    pad_value : float
        Fills what windows reach beyond the scan, in network input values.
    """

    orientation: str
    spacing: FloatTriple | None
    intensity: Intensity
    crop: Crop | None = None
    pad_value: float = 0.0

    def __post_init__(self) -> None:
        try:
            check_axis_codes(self.orientation)
        except GeometryError as error:
            raise CardError(f"encoder card, preparation.orientation: {error}") from error
        if self.spacing is not None:
            ok = all(s > 0 for s in self.spacing)
            _require(ok, "preparation.spacing", "three positive mm", self.spacing)


@dataclass(frozen=True)
class EncoderInput:
    """The graph's input.

    Parameters
    ----------
    name : str
        Name in the graph.
    window : tuple of 3 int
        Voxels of one window; for a dynamic input the largest window that is fed.
    dynamic : bool
        Whether smaller windows are accepted: a small scan is then not padded to `window`.
    channels : int
        1: single-channel CT or MR.
    multiple : tuple of 3 int
        What every window size must be a multiple of, such as 32 for a U-Net that halves five times.
    """

    name: str
    window: Triple
    dynamic: bool
    channels: int = 1
    multiple: Triple = (1, 1, 1)

    def __post_init__(self) -> None:
        _require(all(n > 0 for n in self.window), "input.window", "three positive sizes", self.window)
        _require(self.channels == 1, "input.channels", "1 (one CT or MR channel)", self.channels)
        _require(all(n > 0 for n in self.multiple), "input.multiple", "three positive sizes", self.multiple)


@dataclass(frozen=True)
class Blending:
    """How overlapping windows become one volume.

    Parameters
    ----------
    kind : {"halo", "gaussian"}
        ``halo``: `halo` input voxels at each inner border of a window are dropped; exact where the halo
        covers the receptive field. ``gaussian``: windows overlap by the fraction `overlap` and are
        averaged with a gaussian weight of sigma = window / 8 (FSEFT: 0.25).
    halo : tuple of 3 int
        Input voxels, for ``halo``.
    overlap : float
        Fraction of the window, for ``gaussian``.
    """

    kind: Literal["halo", "gaussian"]
    halo: Triple = (0, 0, 0)
    overlap: float = 0.25

    def __post_init__(self) -> None:
        _require(self.kind in ("halo", "gaussian"), "blending.kind", "halo or gaussian", self.kind)
        _require(all(h >= 0 for h in self.halo), "blending.halo", "0 or more voxels", self.halo)
        _require(0 <= self.overlap < 1, "blending.overlap", "a fraction below 1", self.overlap)


@dataclass(frozen=True)
class Output:
    """One level of features.

    Parameters
    ----------
    name : str
        Name of the graph's output, and of the level in the store.
    channels : int
        Features per voxel.
    stride : tuple of 3 int
        Input voxels from one feature to the next.
    offset : tuple of 3 float
        Position of the first feature in input voxels.
    size : {"ceil", "floor"}
        How many features an axis of n voxels yields: ceil or floor of n / stride.
    default : bool
        Whether adapters read this level unless told otherwise.
    """

    name: str
    channels: int
    stride: Triple
    offset: FloatTriple
    size: SizeRule = "ceil"
    default: bool = True

    def __post_init__(self) -> None:
        field = f"outputs[{self.name}]"
        plain = bool(self.name) and all(c.isalnum() or c in "._-" for c in self.name)
        _require(
            plain and not self.name.startswith("."),
            f"{field}.name",
            "letters, digits, '.', '_' or '-'; rename the graph's output otherwise",
            self.name,
        )
        _require(self.channels > 0, f"{field}.channels", "a positive number", self.channels)
        _require(all(s > 0 for s in self.stride), f"{field}.stride", "positive", self.stride)
        _require(self.size in ("ceil", "floor"), f"{field}.size", "ceil or floor", self.size)


@dataclass(frozen=True)
class Head:
    """The encoder's own classifier, a linear map of one level's features.

    Parameters
    ----------
    level : str
        The level that the classifier reads.
    classes : tuple of str
        Names, one a row; with softmax the first is the background.
    activation : {"none", "softmax", "sigmoid"}
        What `output` holds: logits ("none") or probabilities.
    multilabel : bool
        Whether the classes are independent of each other (a sigmoid each, no background row).
    output : str or None
        Graph output from which the head is recovered by least squares while extracting.
    weights, bias : tuple or None
        The head itself, (K, C) and (K,), where the vendor gives it instead of an output.
    """

    level: str
    classes: tuple[str, ...]
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    multilabel: bool = False
    output: str | None = None
    weights: tuple[tuple[float, ...], ...] | None = None
    bias: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        kinds = ("none", "softmax", "sigmoid")
        _require(self.activation in kinds, "head.activation", " or ".join(kinds), self.activation)
        _require(
            len(set(self.classes)) == len(self.classes) > 0, "head.classes", "distinct names", self.classes
        )
        given = (self.weights is not None) + (self.output is not None)
        _require(given == 1, "head", "either 'output' or 'weights' and 'bias'", dataclasses.asdict(self))
        if self.weights is not None:
            rows = (len(self.weights), len(self.bias or ()))
            _require(rows == (len(self.classes),) * 2, "head.weights and .bias", "a row a class", rows)
        if self.activation != "none":
            _require(
                self.multilabel == (self.activation == "sigmoid"),
                "head.multilabel",
                "true with sigmoid, false with softmax",
                self.multilabel,
            )


@dataclass(frozen=True)
class Golden:
    """What the encoder yields for `golden_input(shape)`, to prove that a runtime computes rightly.

    Parameters
    ----------
    shape : tuple of 3 int
        Window of the golden input.
    values : mapping of str to tuple of float
        Per output, 16 values (`GOLDEN_VALUES`) at evenly spaced flat indices.
    tolerance : float
        Largest difference accepted, relative to the largest of the values.
    """

    shape: Triple
    values: Mapping[str, tuple[float, ...]]
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        _require(all(n > 0 for n in self.shape), "golden.shape", "three positive sizes", self.shape)
        _require(self.tolerance > 0, "golden.tolerance", "a positive number", self.tolerance)
        for name, values in self.values.items():
            _require(len(values) == GOLDEN_VALUES, f"golden.values.{name}", f"{GOLDEN_VALUES} values", values)


@dataclass(frozen=True)
class EncoderCard:
    """What a frozen encoder expects and yields; see the module's docstring."""

    name: str
    version: str
    licence: str
    modality: Modality
    input: EncoderInput
    preparation: Preparation
    blending: Blending
    outputs: tuple[Output, ...]
    head: Head | None = None
    golden: Golden | None = None

    def __post_init__(self) -> None:
        _require(self.modality in ("CT", "MR"), "modality", "CT or MR", self.modality)
        names = [output.name for output in self.outputs]
        _require(len(set(names)) == len(names) > 0, "outputs", "at least one, distinct names", names)
        _require(any(o.default for o in self.outputs), "outputs", "one with default true", names)
        if self.head is not None:
            _require(self.head.level in names, "head.level", f"one of {names}", self.head.level)
            _require(self.head.output not in names, "head.output", "not a level as well", self.head.output)
            for row in self.head.weights or ():
                channels = self.output(self.head.level).channels
                _require(len(row) == channels, "head.weights", f"rows of {channels}", len(row))
        for name in () if self.golden is None else self.golden.values:
            _require(name in names, "golden.values", f"names of outputs {names}", name)
        for axis, (size, step) in enumerate(zip(self.input.window, self.window_step, strict=True)):
            _require(
                size % step == 0,
                "input.window",
                f"a multiple of {step} on axis {axis} (of input.multiple and every stride)",
                self.input.window,
            )
            halo = -(-self.blending.halo[axis] // step) * step
            _require(
                self.blending.kind != "halo" or size >= 2 * halo + step,
                "blending.halo",
                f"one that leaves a core in a window of {size} voxels on axis {axis} (two halos, each rounded up "
                f"to a multiple of {step}, and {step} voxels)",
                self.blending.halo,
            )

    @property
    def unit(self) -> Literal["HU", "a.u."]:
        """Unit of the scans that the encoder reads."""
        return "HU" if self.modality == "CT" else "a.u."

    @property
    def default_levels(self) -> tuple[str, ...]:
        """Names of the levels that adapters read unless told otherwise."""
        return tuple(output.name for output in self.outputs if output.default)

    @property
    def window_step(self) -> Triple:
        """Least common multiple of all levels' strides and the input's: windows start at its multiples."""
        multiple = self.input.multiple
        x, y, z = (math.lcm(multiple[a], *(o.stride[a] for o in self.outputs)) for a in range(3))
        return x, y, z

    def output(self, name: str) -> Output:
        """Return the level called `name`; CardError if there is none."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise CardError(f"no level {name!r}: the encoder has {[o.name for o in self.outputs]}")

    def to_json(self) -> dict[str, Any]:
        """Return the card as a JSON document."""
        document = {"format": METADATA_KEY, "card_version": CARD_VERSION} | dataclasses.asdict(self)
        # Tuples become lists, as they will be when the document is read back and compared.
        values: dict[str, Any] = json.loads(json.dumps(document))
        return values
