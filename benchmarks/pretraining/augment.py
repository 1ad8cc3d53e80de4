"""Training crops: geometry, contrast, resolution, noise, length and field of view strongly randomised.

A third of the crops is shown in random contrast: every tissue gets a random brightness, after SynthSeg
(Billot et al., Medical Image Analysis 2023). One in twenty shows random shapes, without labels: features have to serve
MR and unseen anatomy too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from featcache.phantom import TISSUE_VALUES, TISSUES

from .data import Case
from .network import HIGH_HU, LOW_HU, WINDOWS_HU

_SOFT = WINDOWS_HU[1]


@dataclass(frozen=True)
class Crop:
    """What one training crop holds.

    Parameters
    ----------
    image
        (1, n, n, n), network input 0..1.
    labels
        (n, n, n), int64, values of STRUCTURES.
    annotated
        (30,), bool; all False where no label may be used.
    clean
        (1, n, n, n): the soft-tissue window of the picture before noise and blur.
    edges
        (1, n, n, n): 1 at borders between tissues.
    """

    image: Tensor
    labels: Tensor
    annotated: Tensor
    clean: Tensor
    edges: Tensor


def draw(case: Case, size: int, random: np.random.Generator) -> Crop:
    """A random crop of the case."""
    image, labels, tissue = _cut(case, size, random)
    annotated = torch.from_numpy(case.annotated)
    kind = random.random()
    if kind < 0.05:
        tissue, image = _random_shapes(size, random)
        annotated = torch.zeros_like(annotated)
    elif kind < 0.4:
        image = _random_contrast(tissue, random)
    else:
        image = _vary_contrast(image, tissue, random)
    clean = ((image - _SOFT[0]) / (_SOFT[1] - _SOFT[0])).clamp(0, 1)
    edges = torch.zeros_like(clean)
    for axis in range(3):
        change = (tissue.diff(dim=axis) != 0).float()
        pad = [0, 0] * (2 - axis) + [0, 1] + [0, 0] * axis
        edges = torch.maximum(edges, functional.pad(change, pad))
    image = _scanner(image, random)
    image = ((image - LOW_HU) / (HIGH_HU - LOW_HU)).clamp(0, 1)
    return Crop(image[None], labels.long(), annotated, clean[None], edges[None])


def _cut(case: Case, size: int, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled, turned crop around a structure or anywhere: HU, labels, tissues; air beyond the scan."""
    shape = np.array(case.image.shape)
    centre = random.uniform(0, 1, 3) * shape
    known = np.flatnonzero(case.annotated)
    if random.random() < 0.6:
        places = np.flatnonzero(case.labels.reshape(-1)[::7] == random.choice(known)) * 7
        if len(places):
            centre = np.array(np.unravel_index(random.choice(places), case.labels.shape), float)
            centre += random.uniform(-0.3, 0.3, 3) * size
    scale = np.exp(random.normal(0, 0.14)) * np.exp(random.normal(0, 0.06, 3))
    turn = Rotation.from_euler("xyz", random.normal(0, 7, 3), degrees=True).as_matrix() * scale
    half = (size - 1) / 2
    reach = np.abs(turn).sum(1) * half + 2
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, shape).astype(int)
    low = np.minimum(low, shape - 2)
    high = np.maximum(high, low + 2)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    axis = np.linspace(-half, half, size, dtype=np.float32)
    where = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1) @ turn.T.astype(np.float32)
    span = (high - low - 1) / 2
    where = ((where + (centre - low).astype(np.float32)) / span.astype(np.float32) - 1)[..., ::-1]
    grid = torch.from_numpy(np.ascontiguousarray(where))[None]
    image = torch.from_numpy(case.image[box].astype(np.float32))[None, None] + 1000
    image = functional.grid_sample(image, grid, align_corners=True)[0, 0] - 1000
    maps = torch.from_numpy(np.stack([case.labels[box], case.tissue[box]]).astype(np.float32))[None]
    labels, tissue = functional.grid_sample(maps, grid, mode="nearest", align_corners=True)[0]
    if random.random() < 0.2:  # a short scan: a few centimetres along the body
        thick = int(random.integers(size // 4, size))
        first = int(random.integers(0, size - thick + 1))
        for array, beyond in ((image, LOW_HU), (labels, 0), (tissue, TISSUE_VALUES["air"])):
            array[..., :first] = beyond
            array[..., first + thick :] = beyond
    return image, labels, tissue.long()


def _uniform(random: np.random.Generator, low: float, high: float, *size: int) -> Tensor:
    return torch.from_numpy(random.uniform(low, high, size or (1,)).astype(np.float32))


def _smooth(shape: tuple[int, ...], cells: int, random: np.random.Generator) -> Tensor:
    """Smooth random field of about -1..1."""
    knots = torch.from_numpy(random.standard_normal((1, 1, cells, cells, cells)).astype(np.float32))
    return functional.interpolate(knots, shape, mode="trilinear", align_corners=True)[0, 0]


def _noise(shape: tuple[int, ...], random: np.random.Generator) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape, np.float32))


def _random_contrast(tissue: Tensor, random: np.random.Generator) -> Tensor:
    """Every tissue at a brightness of its own; tissues that CT cannot tell apart sometimes share one."""
    levels = _uniform(random, *_SOFT, len(TISSUES))
    if random.random() < 0.5:
        pairs = (
            ("arterial_blood", "left_heart_blood"),
            ("caval_blood", "right_heart_blood"),
            ("portal_blood", "caval_blood"),
        )
        for a, b in pairs:
            levels[TISSUE_VALUES[b]] = levels[TISSUE_VALUES[a]]
    if random.random() < 0.5:
        levels[TISSUE_VALUES["visceral_fat"]] = levels[TISSUE_VALUES["pericardial_fat"]] = levels[
            TISSUE_VALUES["fat"]
        ]
    levels[TISSUE_VALUES["air"]] = _SOFT[0] if random.random() < 0.6 else LOW_HU
    texture = _uniform(random, 0, 22, len(TISSUES))
    image = levels[tissue] + texture[tissue] * _noise(tuple(tissue.shape), random)
    return image + _smooth(tuple(tissue.shape), int(random.integers(3, 6)), random) * float(
        random.uniform(0, 35)
    )


def _random_shapes(size: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A partition of space into random shapes, and a picture of it."""
    fields = torch.stack([_smooth((size,) * 3, int(random.integers(4, 14)), random) for _ in range(6)])
    tissue = fields.argmax(0)
    return tissue, _random_contrast(tissue, random)


def _vary_contrast(image: Tensor, tissue: Tensor, random: np.random.Generator) -> Tensor:
    """Another bolus timing, calibration and slope for a picture in HU."""
    if random.random() < 0.5:
        shift = torch.from_numpy(random.normal(0, 14, len(TISSUES)).astype(np.float32))
        shift[TISSUE_VALUES["air"]] = 0
        image = image + _blur(shift[tissue], (0.6,) * 3)
    image = (image + 1000) * float(random.normal(1, 0.02)) - 1000 + float(random.normal(0, 10))
    if random.random() < 0.2:
        image = image + _smooth(tuple(image.shape), 4, random) * float(random.uniform(0, 20))
    return image


def _blur(image: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    for axis, width in enumerate(sigma):
        if width < 0.2:
            continue
        reach = max(1, int(2.5 * width))
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2)
        kernel = (kernel / kernel.sum()).view([-1 if i == axis else 1 for i in range(3)])
        pad = [reach if i // 2 == 2 - axis else 0 for i in range(6)]
        padded = functional.pad(image[None, None], pad, mode="replicate")
        image = functional.conv3d(padded, kernel[None, None])[0, 0]
    return image


def _scanner(image: Tensor, random: np.random.Generator) -> Tensor:
    """Blur, thick slices, grainy noise, a cut field of view."""
    if random.random() < 0.5:
        image = _blur(image, tuple(random.uniform(0, 1.1, 3).tolist()))  # type: ignore[arg-type]
    if random.random() < 0.4:
        axis = int(random.choice([2, 2, 2, 0, 1]))
        thick = int(random.integers(2, 5))
        steps = [thick if i == axis else 1 for i in range(3)]
        coarse = functional.avg_pool3d(image[None, None], steps, ceil_mode=True)
        image = functional.interpolate(coarse, tuple(image.shape), mode="trilinear", align_corners=False)[
            0, 0
        ]
    if random.random() < 0.75:
        grain = _noise(tuple(image.shape), random)
        if random.random() < 0.6:
            grain = _blur(grain, (float(random.uniform(0.3, 0.9)),) * 2 + (0.0,))
            grain = grain / grain.std()
        image = image + grain * float(np.exp(random.uniform(np.log(3), np.log(55))))
    if random.random() < 0.1:
        size = image.shape[0]
        axis_values = torch.arange(size) - random.uniform(0.2, 0.8) * size
        radius = torch.hypot(axis_values[:, None, None], axis_values[None, :, None])
        image = torch.where(radius > random.uniform(0.5, 0.9) * size, torch.tensor(LOW_HU), image)
    return image
