"""Does zero-shot work from the store alone? The MNI152 template through a brain network's recovered head.

    python benchmarks/mni152.py --work /tmp/mni152

mr_meshnet_subcortical18 wants LIA volumes at 1 mm; nilearn's template is RAS. Its head is recovered from its
logits while extracting; masks then come from the store. Truth: nilearn's white- and grey-matter maps above 0.5.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from common import encoder, write_result
from nilearn import datasets

from adapters import FewShotSegmenter
from featcache import FeatureStore, extract

CLASSES = (
    "white=cerebral-white-matter+cerebellum-white-matter,"
    "grey=cerebral-cortex+cerebellum-cortex+hippocampus+amygdala+caudate+putamen+accumbens+thalamus"
)


def main() -> None:
    """Extract, segment, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    model = encoder("mr_meshnet_subcortical18", work)
    template = datasets.load_mni152_template(resolution=1)
    scan = work / "scans" / "mni152.nii.gz"
    scan.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(template.dataobj, np.float32), template.affine), scan)
    begun = time.perf_counter()
    result = extract(model, scan.parent, work / "mni152.zarr")
    seconds = time.perf_counter() - begun
    print(result)
    store = FeatureStore.open(work / "mni152.zarr")
    fitted = FewShotSegmenter(method="zero-shot", classes=CLASSES).fit(store)
    begun = time.perf_counter()
    mask = fitted.predict(store.case("mni152"))
    assert np.array_equal(mask.grid.affine, template.affine)
    found = {
        "r2": store.root.head["r2"],
        "extract_seconds": seconds,
        "predict_seconds": time.perf_counter() - begun,
    }
    truths = {"white": datasets.load_mni152_wm_template, "grey": datasets.load_mni152_gm_template}
    for name, load in truths.items():
        truth = np.asarray(load(resolution=1).dataobj) > 0.5
        inside = mask.values == mask.classes[name]
        found[name] = float(2 * (inside & truth).sum() / (inside.sum() + truth.sum()))
    print(found)
    print(write_result("mni152", found))


if __name__ == "__main__":
    main()
