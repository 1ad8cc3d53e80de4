"""The 29 structures of the generated cohort, named as TotalSegmentator names them, and what each tissue looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["native", "arterial", "venous", "delayed"]
PHASES: tuple[Phase, ...] = ("native", "arterial", "venous", "delayed")

STRUCTURES: dict[str, int] = {
    name: value
    for value, name in enumerate(
        (
            "background",
            "lung_right",
            "lung_left",
            "trachea",
            "esophagus",
            "heart_ventricle_left",
            "heart_myocardium",
            "heart_ventricle_right",
            "heart_atrium_right",
            "heart_atrium_left",
            "pulmonary_artery",
            "aorta",
            "inferior_vena_cava",
            "portal_vein_and_splenic_vein",
            "liver",
            "gallbladder",
            "spleen",
            "kidney_right",
            "kidney_left",
            "adrenal_gland_right",
            "adrenal_gland_left",
            "stomach",
            "duodenum",
            "pancreas",
            "colon",
            "urinary_bladder",
            "vertebrae",
            "ribs",
            "autochthon",
            "iliopsoas",
        )
    )
}
"""Class name to label value; 0 is background."""

NEW_STRUCTURES = ("heart_atrium_left", "duodenum", "iliopsoas")
"""Held out of the built-in encoder's pre-training: a heart chamber, a part of the bowel and a muscle."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """How a tissue looks in CT.

    Parameters
    ----------
    level
        Mean HU in the native, arterial, venous and delayed phase.
    spread
        Standard deviation of the mean between people, HU.
    texture
        Standard deviation of the tissue's own texture, HU.
    """

    level: tuple[float, float, float, float]
    spread: float = 4.0
    texture: float = 4.0


def _plain(level: float, spread: float = 4.0, texture: float = 4.0) -> Tissue:
    return Tissue((level,) * 4, spread, texture)


TISSUES: dict[str, Tissue] = {
    "air": _plain(-1000, 0, 0),
    "skin": _plain(5, 8, 10),
    "fat": _plain(-103, 5, 7),
    "visceral_fat": _plain(-99, 7, 9),
    "muscle": Tissue((50, 54, 60, 60), 7, 8),
    "gland": _plain(15, 15, 25),
    "lung": _plain(-845, 30, 25),
    "pulmonary_vessel": Tissue((30, 180, 100, 80), 20, 10),
    "airway": _plain(-985, 5, 3),
    "airway_wall": _plain(10, 15, 8),
    "arterial_blood": Tissue((42, 310, 150, 112), 18, 4),
    "left_heart_blood": Tissue((42, 290, 145, 112), 18, 5),
    "right_heart_blood": Tissue((42, 210, 140, 112), 30, 9),
    "caval_blood": Tissue((42, 95, 142, 112), 18, 6),
    "portal_blood": Tissue((42, 115, 172, 120), 15, 4),
    "myocardium": Tissue((45, 98, 104, 92), 8, 6),
    "pericardial_fat": _plain(-90, 8, 10),
    "liver": Tissue((57, 68, 110, 96), 10, 5),
    "spleen": Tissue((48, 125, 120, 100), 8, 5),
    "renal_cortex": Tissue((33, 165, 182, 165), 14, 6),
    "renal_medulla": Tissue((29, 65, 160, 175), 12, 8),
    "renal_pelvis": Tissue((4, 5, 10, 320), 8, 6),
    "pancreas": Tissue((40, 100, 92, 78), 10, 14),
    "adrenal": Tissue((25, 72, 68, 52), 10, 5),
    "gut_wall": Tissue((38, 72, 80, 70), 8, 6),
    "gut_fluid": _plain(18, 12, 8),
    "gut_food": _plain(25, 25, 45),
    "gut_contrast": _plain(230, 60, 25),
    "stool": _plain(5, 35, 75),
    "gas": _plain(-960, 15, 6),
    "bile": _plain(8, 6, 4),
    "urine": Tissue((4, 4, 6, 140), 5, 5),
    "cortical_bone": _plain(760, 130, 60),
    "trabecular_bone": _plain(190, 55, 28),
    "disc": _plain(78, 12, 8),
    "cartilage": _plain(95, 20, 15),
    "cord": _plain(35, 5, 4),
    "cyst": _plain(8, 8, 4),
    "lesion": Tissue((38, 75, 68, 62), 20, 10),
    "effusion": _plain(10, 6, 5),
    "table_shell": _plain(-120, 60, 10),
    "table_foam": _plain(-930, 20, 8),
    "metal": _plain(3000, 0, 0),
}
"""Every tissue that is drawn; levels after radiology's reference ranges for adults, 100-120 kV."""

TISSUE_VALUES: dict[str, int] = {name: value for value, name in enumerate(TISSUES)}
"""Tissue name to its value in a tissue map."""
