"""Is the built-in encoder of use on real scans? Its own head on a real CT and MR, and a picture of its features.

    python benchmarks/real_scans.py --work /tmp/real_scans

A CT slab and an MR of TotalSegmentator's test files, 3 mm; the labels are a model's output. One case each: an
indication, no more. The picture goes to docs/features.png: features of real and generated scans in the same colours.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from common import HERE, shared_data, write_result
from numpy.typing import NDArray
from scipy import ndimage

from adapters import FewShotSegmenter
from adapters.features import FeatureVolume
from adapters.metrics import dice_case
from adapters.preview import feature_plane, paint
from featcache import FeatureStore, extract
from featcache.card_json import card_from_json
from featcache.phantom import find_site, write_cohort
from featcache.prepare import prepare
from featcache.scans.discover import discover
from featcache.scans.read import read_scan

PARTS = {  # what the built-in head joins
    "lung_right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "lung_left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "vertebrae": ("vertebrae_",),
    "ribs": ("rib_",),
    "autochthon": ("autochthon_",),
}
MR = {  # the MR's labels have no names: these are the numbers of TotalSegmentator's task total_mr
    name: value
    for value, name in enumerate(
        (
            "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas",
            "adrenal_gland_right", "adrenal_gland_left", "lung_left", "lung_right", "esophagus", "small_bowel",
            "duodenum", "colon", "urinary_bladder", "prostate", "sacrum", "vertebrae", "intervertebral_discs",
            "spinal_cord", "heart", "aorta", "inferior_vena_cava", "portal_vein_and_splenic_vein",
        ),
        1,
    )
} | {"autochthon_left": 46, "autochthon_right": 47}  # fmt: skip
FEWEST = 100  # voxels of 3 mm from which a structure counts
PICTURE = HERE.parent / "docs" / "features.png"


def main() -> None:
    """Extract, predict, print Dice, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work
    torso = shared_data() / "torso_ct"
    stores = {
        "ct": _store(work, "builtin", [torso / "ct.nii.gz", torso / "long_ct.nii.gz"]),
        "mr": _store(work, "builtin-mr", [torso / "mr.nii.gz"]),
    }
    names = {"ct": json.loads((torso / "ct_labels.json").read_text("utf-8")), "mr": MR}
    found = {kind: _zero_shot(store, kind, names[kind], torso) for kind, store in stores.items()}
    for kind, rows in found.items():
        print(f"\n| {kind} | Dice | voxels, truth | voxels, found |\n|---|---|---|---|")
        for name, (dice, truth, mine) in rows.items():
            print(f"| {name} | {dice:.2f} | {truth:,} | {mine:,} |")
        print(f"| mean of {len(rows)} | {np.mean([dice for dice, *_ in rows.values()]):.3f} | | |")
    write_result("real_scans", {"fewest_voxels": FEWEST, **found})
    _picture(work, stores)
    print(PICTURE)


def _store(work: Path, model: str, scans: list[Path]) -> FeatureStore:
    out = work / f"{model}.zarr"
    shutil.rmtree(out, ignore_errors=True)
    out.with_name(f"{model}.private.json").unlink(missing_ok=True)
    extract(model, scans, out)
    return FeatureStore.open(out)


def _zero_shot(
    store: FeatureStore, case: str, names: dict[str, int], torso: Path
) -> dict[str, tuple[float, int, int]]:
    """Dice of every structure that both the head and the labels know, and voxels of both."""
    fitted = FewShotSegmenter(method="zero-shot").fit(store)
    mask = fitted.predict(store.case(case))
    labels = np.asarray(nib.load(torso / f"{case}_labels.nii.gz").dataobj)
    truth = np.zeros(labels.shape, np.uint8)
    for name, value in mask.classes.items():
        parts = PARTS.get(name, (name,))
        truth[np.isin(labels, [v for n, v in names.items() if n in parts or n.startswith(parts)])] = value
    scores = dice_case(mask.values, truth, [True] * len(mask.classes))
    return {
        name: (score.dice or 0.0, int((truth == value).sum()), int((mask.values == value).sum()))
        for (name, value), score in zip(mask.classes.items(), scores, strict=True)
        if (truth == value).sum() >= FEWEST
    }


def _picture(work: Path, stores: dict[str, FeatureStore]) -> None:
    """Rows: real CTs, a generated one, the MR; columns: scan and features, axial and coronal."""
    from matplotlib.figure import Figure

    torso, made = shared_data() / "torso_ct", work / "generated"
    write_cohort(made, find_site("organs"), 1, seed=0)
    generated = _store(work / "generated", "builtin", [made / "scans" / "organs_00.nii.gz"])
    rows = [
        ("real CT", stores["ct"], "ct", torso / "ct.nii.gz"),
        ("real CT, longer", stores["ct"], "long_ct", torso / "long_ct.nii.gz"),
        ("generated CT", generated, "organs_00", made / "scans" / "organs_00.nii.gz"),
    ]
    pictures, planes = [], []
    for _, store, case, path in rows:
        volume = FeatureVolume(store.case(case), ["features"])
        card = card_from_json(store.root.card)
        scan = prepare(read_scan(discover([path]).sources[0], unit=card.unit), card.preparation).voxels[0]
        _, y, z = (n // 2 for n in volume.grid.shape)
        pictures += [scan[:, :, z], scan[:, y, :]]
        planes += [feature_plane(volume, 2, z), feature_plane(volume, 1, y)]
    colours = paint(planes)
    figure = Figure(figsize=(11, 2.9 * len(rows)), dpi=110, facecolor="black", layout="tight")
    for row, (title, *_) in enumerate(rows):
        for column in range(2):
            where = 2 * row + column
            for offset, values in (
                (0, _grey(pictures[where])),
                (1, _on_black(colours[where], pictures[where])),
            ):
                axes = figure.add_subplot(len(rows), 4, 4 * row + 2 * column + offset + 1)
                axes.imshow(
                    values.transpose(1, 0, *range(2, values.ndim))[::-1, ::-1], cmap="gray", vmin=0, vmax=1
                )
                axes.set_axis_off()
                if column == 0 and offset == 0:
                    axes.set_title(title, color="white", fontsize=11, loc="left")
    figure.savefig(PICTURE, facecolor="black")


def _on_black(colours: NDArray[Any], scan: NDArray[Any]) -> NDArray[Any]:
    """Colours of the body, from -500 HU on with what lies within; black around it."""
    body = ndimage.binary_opening(ndimage.binary_fill_holes(scan > 0.25), iterations=2)
    return colours * body[..., None]


def _grey(values: NDArray[Any]) -> NDArray[Any]:
    """HU -160 to 240 as 0 to 1."""
    hounsfield = values * 2000 - 1000
    return np.clip((hounsfield + 160) / 400, 0, 1)


if __name__ == "__main__":
    main()
