"""Real encoders with the cards of benchmarks/cards, on small crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featcache.card_json import parse_card
from featcache.encode import encode
from featcache.geometry import Grid
from featcache.head import REQUIRED_R2, HeadSampler
from featcache.prepare import prepare
from featcache.runtime.onnxruntime import OnnxEncoder
from featcache.scans import Scan, ScanSource, read_scan

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
CARDS = ROOT / "benchmarks" / "cards"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the real scans and encoders in ../shared/data"),
]


def runtime(name):
    path = CARDS / f"{name}.card.json"
    return OnnxEncoder(DATA / "models" / f"{name}.onnx", parse_card(path.read_bytes(), str(path)), "cpu")


def cut(scan, start, size):
    box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    affine = scan.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(start)
    grid = Grid(tuple(size), affine)
    return Scan(scan.voxels[box], grid, 1, 0, unit=scan.unit, case=scan.case, path=scan.path)


def test_the_ct_encoder_yields_its_levels():
    encoder = runtime("ct_i3resnet152_l1l2")
    scan = read_scan(ScanSource("ct", (DATA / "torso_ct" / "ct.nii.gz",)), unit="HU")
    scan = cut(scan, (50, 40, 10), (13, 11, 9))
    volume = prepare(scan, encoder.card.preparation, (3.0, 3.0, 3.0))
    assert volume.grid.shape == (13, 11, 9)
    levels = dict(encode(volume, encoder))
    assert {name: values.shape for name, values in levels.items()} == {
        "features_l1": (256, 4, 3, 5),
        "features_l2": (512, 2, 2, 3),
    }
    assert all(np.isfinite(v).all() and v.std() > 0 for v in levels.values())


def test_the_mr_encoders_head_is_recovered():
    """On a head-sized blob of the torso MR: the anatomy is wrong, the linear map is the same."""
    encoder = runtime("mr_meshnet_subcortical18")
    source = ScanSource("mr", (DATA / "torso_ct" / "mr.nii.gz",))
    scan = read_scan(source, unit="a.u.")
    middle = [n // 2 for n in scan.grid.shape]
    size = [min(20, n) for n in scan.grid.shape]
    scan = cut(scan, [m - s // 2 for m, s in zip(middle, size, strict=True)], size)
    volume = prepare(scan, encoder.card.preparation, (2.0, 2.0, 2.0))
    sampler = HeadSampler(encoder.card)
    levels = dict(encode(volume, encoder, sampler=sampler))
    head = sampler.fit()
    assert head.r2 > REQUIRED_R2
    assert head.weights.shape == (18, 30)
    # The recovered head says what the encoder says.
    card = encoder.card
    logits = encoder(np.ascontiguousarray(volume.voxels))[card.head.output]
    found = np.einsum("kc,cxyz->kxyz", head.weights, levels["features"]) + head.bias[:, None, None, None]
    assert (found.argmax(0) == logits.argmax(0)).mean() > 0.999
