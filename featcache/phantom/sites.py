"""Where the generated scans come from: nine training sites and three shifted ones.

Settled before the training of the encoder that ships, and left alone since: the shifts are not chosen to please.
The delayed phase, slices above 4 mm, oral contrast in most scans, arms beside the body and wrong calibration do not
occur at the training sites.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from featcache.errors import TaskError
from featcache.phantom.person import Population
from featcache.phantom.scanner import Acquisition
from featcache.phantom.structures import NEW_STRUCTURES, STRUCTURES

KNOWN_STRUCTURES = tuple(name for name in STRUCTURES if name not in ("background", *NEW_STRUCTURES))
"""What the training sites annotate between them."""
ALL = tuple(name for name in STRUCTURES if name != "background")

THORAX, ABDOMEN, TRUNK, PELVIS = (40.0, 300.0), (-140.0, 135.0), (-150.0, 300.0), (-325.0, 130.0)


@dataclass(frozen=True, slots=True)
class Site:
    """A hospital: whom it examines, how it scans and what it outlines.

    Parameters
    ----------
    annotated
        Structures that its label maps show; others are background in them.
    """

    name: str
    about: str
    annotated: tuple[str, ...]
    acquisition: Acquisition = field(default_factory=Acquisition)
    population: Population = field(default_factory=Population)


_HEART = ("heart_ventricle_left", "heart_myocardium", "heart_ventricle_right", "heart_atrium_right")
_LUNGS = ("lung_right", "lung_left")
_KIDNEYS = ("kidney_right", "kidney_left")
_ADRENALS = ("adrenal_gland_right", "adrenal_gland_left")
_VEINS = ("inferior_vena_cava", "portal_vein_and_splenic_vein")

TRAINING_SITES: dict[str, Site] = {
    site.name: site
    for site in (
        Site(
            "liver",
            "portal venous abdomen, tumour centre",
            ("liver", "spleen", *_KIDNEYS, "gallbladder"),
            Acquisition((1.9, 1.9, 2.5), ABDOMEN, ("venous",), noise=12, orientation="LPS"),
            Population(disease=2.0),
        ),
        Site(
            "pancreas",
            "late arterial upper abdomen",
            ("pancreas", "stomach", *_VEINS, "gallbladder", "spleen"),
            Acquisition((1.8, 1.8, 2.0), (-110, 130), ("arterial", "venous"), noise=15, sharpness=0.7),
            Population(fat=14),
        ),
        Site(
            "chest",
            "chest, low dose, no contrast",
            (*_LUNGS, "trachea", "esophagus", "aorta", "ribs", "vertebrae"),
            Acquisition(
                (1.8, 1.8, 2.5),
                THORAX,
                ("native",),
                noise=26,
                sharpness=0.7,
                field_of_view=340,
                orientation="RAS",
            ),
            Population(age=(64, 8)),
        ),
        Site(
            "organs",
            "venous abdomen of a teaching hospital",
            (
                "spleen",
                *_KIDNEYS,
                "gallbladder",
                "esophagus",
                "liver",
                "stomach",
                "aorta",
                *_VEINS,
                "pancreas",
                *_ADRENALS,
            ),
            Acquisition(
                (2.0, 2.0, 3.0), (-150, 140), ("venous",), noise=14, sharpness=0.9, orientation="LAS"
            ),
        ),
        Site(
            "pelvis",
            "abdomen and pelvis, native and venous",
            (
                "liver",
                "spleen",
                *_KIDNEYS,
                "stomach",
                "urinary_bladder",
                "colon",
                "vertebrae",
                "aorta",
                *_ADRENALS,
            ),
            Acquisition((2.1, 2.1, 3.5), PELVIS, ("native", "venous"), noise=16, oral_contrast=0.3),
            Population(fat=20),
        ),
        Site(
            "trauma",
            "trunk, arterial to venous, young people",
            ("vertebrae", "ribs", "autochthon", *_LUNGS, "liver", "spleen", "aorta"),
            Acquisition(
                (2.0, 2.0, 3.0), TRUNK, ("arterial", "venous"), noise=18, sharpness=0.7, off_centre=15, tilt=2
            ),
            Population(women=0.3, age=(42, 15), disease=0.5, fat=13),
        ),
        Site(
            "colon",
            "abdomen and pelvis, low dose, no contrast",
            ("colon", "urinary_bladder", "autochthon", "vertebrae", "kidney_right", "kidney_left"),
            Acquisition(
                (2.0, 2.0, 3.0),
                PELVIS,
                ("native",),
                noise=28,
                sharpness=0.8,
                oral_contrast=0.3,
                orientation="RAS",
            ),
        ),
        Site(
            "heart",
            "arterial chest, fast scanner",
            (*_HEART, "pulmonary_artery", "aorta", "esophagus", "inferior_vena_cava", "trachea"),
            Acquisition(
                (1.7, 1.7, 2.0), (45, 270), ("arterial",), noise=18, sharpness=0.6, field_of_view=320
            ),
            Population(disease=1.5, age=(66, 10)),
        ),
        Site(
            "follow_up",
            "trunk, venous, follow-up of tumours",
            (
                *_LUNGS,
                *_HEART,
                "pulmonary_artery",
                "liver",
                "stomach",
                "pancreas",
                "portal_vein_and_splenic_vein",
                *_ADRENALS,
                "autochthon",
                "ribs",
            ),
            Acquisition(
                (2.1, 2.1, 4.0), TRUNK, ("venous", "native"), noise=13, sharpness=1.0, orientation="LAS"
            ),
            Population(disease=2.0, fat=17, age=(64, 11)),
        ),
    )
}
"""Each annotates a part of the known structures, as public datasets do."""

SHIFTED_SITES: dict[str, Site] = {
    site.name: site
    for site in (
        Site(
            "mild",
            "trunk, venous; thicker fat, softer and noisier pictures than any training site",
            ALL,
            Acquisition(
                (2.0, 2.0, 3.0),
                TRUNK,
                ("venous", "arterial"),
                sharpness=1.3,
                noise=24,
                grain=1.3,
                orientation="RPI",
            ),
            Population(fat=22, disease=1.5, age=(68, 10), variation=1.1),
        ),
        Site(
            "middle",
            "trunk, delayed phase, 5 mm slices, heavy and ill people, arms down, oral contrast",
            ALL,
            Acquisition(
                (2.0, 2.0, 5.0),
                TRUNK,
                ("delayed",),
                sharpness=1.5,
                noise=30,
                grain=1.6,
                arms="down",
                oral_contrast=0.7,
                metal=0.15,
                off_centre=15,
                tilt=3,
                calibration=(1.0, 12.0),
                orientation="LPS",
            ),
            Population(fat=28, disease=2.5, age=(72, 9), variation=1.3),
        ),
        Site(
            "hard",
            "trunk, no contrast, low dose, 7 mm slices, cut field of view, metal, arms crossed, wrong calibration",
            ALL,
            Acquisition(
                (2.2, 2.2, 7.0),
                TRUNK,
                ("native",),
                sharpness=1.8,
                noise=60,
                grain=1.8,
                field_of_view=330,
                outside=-2000,
                arms="crossed",
                oral_contrast=0.6,
                metal=0.5,
                off_centre=22,
                tilt=8,
                calibration=(0.96, -25.0),
                orientation="PIR",
            ),
            Population(fat=24, disease=3.5, age=(76, 9), variation=1.6),
        ),
    )
}
"""Sites that the built-in encoder has not seen; they outline everything."""


_MIDDLE = SHIFTED_SITES["middle"]
DEMO_SITE = replace(
    _MIDDLE,
    name="demo",
    about="upper abdomen of the site 'middle': delayed phase, 5 mm slices, heavy and ill people, arms down",
    annotated=(
        "spleen",
        "kidney_right",
        "kidney_left",
        "liver",
        "stomach",
        "aorta",
        "inferior_vena_cava",
        "pancreas",
    ),
    acquisition=replace(_MIDDLE.acquisition, coverage=(-65.0, 105.0)),
)
"""What `featcache demo` uses: the middle shift on a short part of the body."""


def known_sites() -> list[Site]:
    """All sites: training, shifted, demo."""
    return [*TRAINING_SITES.values(), *SHIFTED_SITES.values(), DEMO_SITE]


def find_site(name: str) -> Site:
    """The site of this name.

    Raises
    ------
    TaskError
        No site has the name.
    """
    known = {site.name: site for site in known_sites()}
    if name not in known:
        raise TaskError(f"no generated site is called {name!r}; there are: {', '.join(known)}")
    return known[name]
