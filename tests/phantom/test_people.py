"""Whether the generated people are people: what lies where, how bright it is, how much they differ."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from featcache.geometry import Grid, axis_codes, spacing
from featcache.phantom import (
    KNOWN_STRUCTURES,
    NEW_STRUCTURES,
    STRUCTURES,
    TISSUE_VALUES,
    TRAINING_SITES,
    Acquisition,
    PhantomScan,
    Population,
    Site,
    find_site,
    generate,
)

WHOLE = Acquisition(
    (4.0, 4.0, 4.0), (-325.0, 300.0), ("venous",), metal=0.0, noise=8.0, orientation="RAS", off_centre=0.0
)
HEALTHY = Site("healthy", "whole trunk, no findings", tuple(STRUCTURES)[1:], WHOLE, Population(disease=0.0))


@pytest.fixture(scope="module")
def people() -> list[PhantomScan]:
    return [generate(HEALTHY, number) for number in range(3)]


def centre(made: PhantomScan, name: str) -> NDArray[np.float64]:
    """World position of a structure's middle, mm."""
    index = np.argwhere(made.labels == STRUCTURES[name]).mean(0)
    return np.asarray(made.affine[:3, :3] @ index + made.affine[:3, 3])


def test_everybody_has_every_structure(people: list[PhantomScan]) -> None:
    for made in people:
        volume = np.bincount(made.labels.ravel(), minlength=len(STRUCTURES)) * 64 / 1000
        missing = [name for name, value in STRUCTURES.items() if volume[value] == 0]
        assert missing == []


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("liver", 500, 2500),
        ("spleen", 40, 600),
        ("kidney_right", 70, 320),
        ("lung_left", 900, 4500),
        ("pancreas", 30, 220),
        ("heart_ventricle_left", 35, 300),
        ("aorta", 90, 500),
        ("adrenal_gland_left", 0.5, 15),
        ("vertebrae", 250, 1500),
    ],
)
def test_organs_have_the_volumes_of_adults(
    people: list[PhantomScan], name: str, low: float, high: float
) -> None:
    for made in people:
        assert low < np.count_nonzero(made.labels == STRUCTURES[name]) * 64 / 1000 < high  # ml


def test_organs_lie_where_radiologists_look_for_them(people: list[PhantomScan]) -> None:
    for made in people:
        at = {name: centre(made, name) for name in STRUCTURES if name != "background"}
        right_of = [
            ("liver", "stomach"),
            ("liver", "spleen"),
            ("kidney_right", "kidney_left"),
            ("lung_right", "lung_left"),
            ("inferior_vena_cava", "aorta"),
            ("gallbladder", "spleen"),
            ("heart_atrium_right", "heart_ventricle_left"),
        ]
        above = [
            ("heart_myocardium", "liver"),
            ("spleen", "urinary_bladder"),
            ("adrenal_gland_left", "kidney_left"),
            ("lung_left", "colon"),
            ("pulmonary_artery", "heart_ventricle_left"),
            ("stomach", "urinary_bladder"),
            ("pancreas", "urinary_bladder"),
        ]
        before = [
            ("heart_ventricle_right", "heart_atrium_left"),
            ("pancreas", "vertebrae"),
            ("aorta", "autochthon"),
            ("stomach", "kidney_left"),
            ("trachea", "vertebrae"),
            ("portal_vein_and_splenic_vein", "inferior_vena_cava"),
        ]
        for axis, pairs in ((0, right_of), (2, above), (1, before)):
            wrong = [pair for pair in pairs if at[pair[0]][axis] <= at[pair[1]][axis]]
            assert wrong == []


def test_tissues_have_their_hounsfield_units(people: list[PhantomScan]) -> None:
    for made in people:

        def median(tissue: str, made: PhantomScan = made) -> float:
            return float(np.median(made.voxels[made.tissue == TISSUE_VALUES[tissue]]))

        assert median("air") < -970
        assert -950 < median("lung") < -700
        assert -125 < median("visceral_fat") < -80
        assert 30 < median("muscle") < 85
        assert 70 < median("liver") < 150
        assert 100 < median("arterial_blood") < 210
        assert median("renal_cortex") > median("liver")
        assert median("cortical_bone") > median("trabecular_bone") > 80


def test_people_differ_by_more_than_scale(people: list[PhantomScan]) -> None:
    """Shapes, brought to one centre and size, still overlap in part only."""

    def cube(made: PhantomScan, name: str) -> NDArray[np.bool_]:
        inside = np.argwhere(made.labels == STRUCTURES[name])
        low, high = inside.min(0), inside.max(0) + 1
        index = [np.linspace(a, b - 1, 24).round().astype(int) for a, b in zip(low, high, strict=True)]
        return np.asarray(made.labels[np.ix_(*index)] == STRUCTURES[name])

    for name in ("liver", "stomach", "spleen"):
        shapes = [cube(made, name) for made in people]
        dice = [
            2 * (a & b).sum() / (a.sum() + b.sum())
            for a, b in ((shapes[0], shapes[1]), (shapes[1], shapes[2]))
        ]
        assert max(dice) < 0.95, name


def test_the_same_number_gives_the_same_scan() -> None:
    site = dataclasses.replace(HEALTHY, acquisition=dataclasses.replace(WHOLE, coverage=(-20.0, 40.0)))
    first, again, other = generate(site, 3), generate(site, 3), generate(site, 4)
    assert np.array_equal(first.voxels, again.voxels)
    assert np.array_equal(first.labels, again.labels)
    assert first.voxels.shape != other.voxels.shape or not np.array_equal(first.voxels, other.voxels)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
def test_any_orientation_and_spacing(orientation: str) -> None:
    acquisition = dataclasses.replace(
        WHOLE, coverage=(-40.0, 60.0), spacing=(3.0, 5.0, 8.0), orientation=orientation
    )
    made = generate(dataclasses.replace(HEALTHY, acquisition=acquisition), 0)
    grid = Grid(made.voxels.shape, made.affine)
    assert axis_codes(grid) == orientation
    by_axis = dict(zip(orientation, spacing(grid), strict=True))
    expected = {"R": 3.0, "L": 3.0, "A": 5.0, "P": 5.0, "S": 8.0, "I": 8.0}
    assert by_axis == {code: pytest.approx(expected[code]) for code in orientation}
    assert centre(made, "liver")[0] > centre(made, "spleen")[0]
    assert centre(made, "liver")[1] > centre(made, "vertebrae")[1]


def test_a_cut_field_of_view_is_air_without_labels() -> None:
    acquisition = dataclasses.replace(WHOLE, coverage=(0.0, 30.0), field_of_view=200.0, outside=-2000)
    made = generate(dataclasses.replace(HEALTHY, acquisition=acquisition), 0)
    outside = made.voxels == -2000
    assert 0.1 < outside.mean() < 0.4
    assert not made.labels[outside].any()


def test_every_known_structure_is_annotated_somewhere_and_no_new_one() -> None:
    annotated = {name for site in TRAINING_SITES.values() for name in site.annotated}
    assert annotated == set(KNOWN_STRUCTURES)
    assert not annotated & set(NEW_STRUCTURES)
    assert len(KNOWN_STRUCTURES) + len(NEW_STRUCTURES) == 29
    assert all(set(site.annotated) < annotated for site in TRAINING_SITES.values())


def test_the_middle_site_shows_what_the_training_sites_never_did() -> None:
    seen = {phase for site in TRAINING_SITES.values() for phase in site.acquisition.phases}
    middle = find_site("middle").acquisition
    assert not set(middle.phases) & seen
    assert middle.spacing[2] > max(site.acquisition.spacing[2] for site in TRAINING_SITES.values())
