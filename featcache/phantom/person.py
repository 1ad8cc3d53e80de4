"""One generated person: what differs between people, drawn from a population."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from featcache.phantom.canvas import Canvas, smooth_noise

VERTEBRA_HEIGHTS = (
    -178,
    -143,
    -107,
    -71,
    -35,
    0,
    31,
    60,
    87,
    113,
    138,
    162,
    186,
    209,
    231,
    252,
    272,
    290,
    306,
    321,
)
"""Centres of the vertebrae from S1 over L5..L1 and T12..T1 to C6 above the middle of L1, mm."""
L1 = 5
T12, T1 = 6, 17


@dataclass(frozen=True, slots=True)
class Population:
    """Whom a site examines.

    Parameters
    ----------
    women
        Share of women.
    age
        Mean and deviation, years: bone density, aortic width, fat in muscles.
    fat
        Median thickness of the fat under the skin, mm; the visceral fat goes with it.
    disease
        Mean number of findings a person: cysts, lesions, effusion, large or missing organs.
    variation
        1: as between adults. More bends and displaces more.
    """

    women: float = 0.5
    age: tuple[float, float] = (60.0, 14.0)
    fat: float = 16.0
    disease: float = 1.0
    variation: float = 1.0


@dataclass(frozen=True, slots=True)
class Person:
    """Who is drawn: sizes relative to the reference body, millimetres, and what is unusual."""

    woman: bool
    age: float
    scale: NDArray[np.float64]
    fat: float
    visceral: float
    depth: float
    muscle: float
    scoliosis: tuple[float, float]
    lordosis: float
    breath: float
    findings: frozenset[str]
    variation: float
    random: np.random.Generator

    def vary(self, spread: float, *size: int) -> NDArray[np.float64]:
        """Normal deviations of `spread`, cut at 2.2 of them."""
        drawn = self.random.standard_normal(size or 1).clip(-2.2, 2.2) * spread * self.variation
        return np.asarray(drawn, float)

    def around(self, value: float, spread: float = 0.1) -> float:
        """A positive value varied by a share of itself."""
        return float(value * np.exp(self.vary(spread)[0]))


FINDINGS = (
    "liver_cysts",
    "liver_lesions",
    "kidney_cysts",
    "effusion",
    "large_spleen",
    "no_gallbladder",
    "no_kidney",
    "ascites",
    "lung_nodules",
    "aneurysm",
    "hydronephrosis",
    "large_heart",
    "calcified_aorta",
    "gallstones",
)


def draw_person(population: Population, random: np.random.Generator) -> Person:
    """Draw a person of the population."""

    def normal(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(random.standard_normal(), -2.2, 2.2))

    woman = bool(random.random() < population.women)
    age = float(np.clip(normal(*population.age), 18, 95))
    variation = population.variation
    fat = float(np.clip(population.fat * np.exp(normal(0.15 if woman else -0.05, 0.42)), 3, 62))
    height = normal(0.95 if woman else 1.03, 0.055 * variation)
    width = normal(0.95 if woman else 1.02, 0.055 * variation) + 0.0015 * (fat - 16)
    number = min(int(random.poisson(population.disease)), 4)
    return Person(
        woman=woman,
        age=age,
        scale=np.array([width, normal(0.97, 0.06 * variation) * (0.5 + 0.5 * width), height]),
        fat=fat,
        visceral=float(np.clip(fat * np.exp(normal(-0.2 if woman else 0.25, 0.45)), 2, 60)),
        depth=normal(0, 7 * variation),
        muscle=float(np.exp(normal(-0.06 if woman else 0.04, 0.13) - 0.003 * (age - 60))),
        scoliosis=(normal(0, 5 * variation), float(random.uniform(0, 2 * np.pi))),
        lordosis=normal(9, 4 * variation),
        breath=normal(0, 13 * variation),
        findings=frozenset(random.choice(FINDINGS, number, replace=False).tolist()),
        variation=variation,
        random=random,
    )


def place(
    person: Person, axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
) -> Canvas:
    """An empty canvas on the axes, bent and displaced as this person is.

    Parameters
    ----------
    axes
        World positions, mm; the middle of the L1 vertebra lies near (0, 0, 0).
    """
    random = person.random
    x, y, z = (
        (axis / scale).astype(np.float32).reshape([-1 if i == n else 1 for i in range(3)])
        for n, (axis, scale) in enumerate(zip(axes, person.scale, strict=True))
    )
    amount = 0.9 * person.variation
    fields = [
        (smooth_noise(axes, 75, random) * 4.5 + smooth_noise(axes, 32, random) * 1.1) * amount
        for _ in range(3)
    ]
    sway = person.scoliosis[0] * np.sin(z / 75 + person.scoliosis[1])
    arch = PchipInterpolator([-400, -230, -90, 130, 300, 420], np.array([-1.4, -1.0, 1.0, -1.1, 0.3, 1.2]))(z)
    forward = np.asarray(arch * person.lordosis, np.float32)
    near_spine = np.clip(1.15 - np.hypot(x, y) / 110, 0, 1)
    bent = (
        (x + fields[0] - near_spine * sway.astype(np.float32)),
        (y + fields[1] - near_spine * forward),
        (z + fields[2] * 0.8),
    )
    return Canvas(
        axes=axes,
        points=tuple(np.asarray(p, np.float32) for p in bent),  # type: ignore[arg-type]
        rough=smooth_noise(axes, 17, random) * 0.6,
        scale=person.scale,
        random=random,
    )
