"""Where features lie: encoders that yield world positions, pushed through everything.

featcache cannot know positions from intensities, so the scans say them: voxels hold their own world
coordinate (mm) along one axis, three scans a geometry. The encoders take every s-th voxel (offset 0) or average
s voxels (offset (s - 1) / 2), so a feature's value is the coordinate of its own place, or something is wrong.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from featcache import geometry
from featcache.card import Blending, Crop, EncoderInput, Intensity, Output, Preparation
from featcache.encode import encode, level_grid, storage_axes
from featcache.extraction import ExtractOptions, extract
from featcache.geometry import Grid
from featcache.prepare import prepare
from featcache.runtime.onnxruntime import OnnxEncoder
from featcache.scans import Scan
from featcache.store import FeatureStore

TOLERANCE = 1e-3  # mm
WINDOW = (16, 24, 16)
SHAPE = (19, 33, 17)
ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]
HALO = Blending("halo", (0, 8, 0))
GAUSSIAN = Blending("gaussian", overlap=0.25)


@dataclass(frozen=True)
class Setting:
    """One row of the table: how the scan lies and how the encoder wants it."""

    name: str
    spacing: tuple[float, float, float] = (0.7, 1.0, 2.5)
    degrees: float = 0.0
    orientation: str = "RAS"
    target: tuple[float, float, float] | None = None
    crop: float | None = None  # fraction of the values that lie below the threshold
    blending: Blending = HALO
    dynamic: bool = True


SETTINGS = [
    Setting("anisotropic"),
    Setting("oblique", degrees=15, blending=GAUSSIAN),
    Setting("LIA, oblique, cropped", degrees=20, orientation="LIA", crop=0.3),
    Setting("respaced, gaussian", target=(1.0, 1.0, 1.0), blending=GAUSSIAN),
    Setting("LIA, oblique, cropped, respaced", (0.8, 2.0, 1.1), 10, "LIA", (1.3, 0.9, 1.7), 0.4),
    Setting("fixed window, padded", degrees=12, orientation="LIA", dynamic=False, blending=GAUSSIAN),
]


@pytest.fixture(scope="module")
def encoder(fakes, tmp_path_factory):
    """Return a function from a setting to a runtime; there is one session for all of them."""
    path = tmp_path_factory.mktemp("position") / "position.onnx"
    runtime = OnnxEncoder(path, fakes.position_encoder(path), "cpu", threads=1)

    class As:
        def __init__(self, card):
            self.card = card

        def __call__(self, window):
            return runtime(window)

    def build(setting: Setting, crop: Crop | None) -> As:
        card = fakes.make_card(
            runtime.card.outputs,
            preparation=_preparation(setting, crop),
            blending=setting.blending,
            input=EncoderInput("image", WINDOW, setting.dynamic),
        )
        return As(card)

    return build


def _preparation(setting: Setting, crop: Crop | None) -> Preparation:
    return Preparation(setting.orientation, setting.target, Intensity("none"), crop)


def scan_grid(codes: str, setting: Setting) -> Grid:
    """Return a grid in the orientation `codes`, its affine exact in float32 as NIfTI keeps it."""
    axis = np.array([1.0, -2.0, 3.0]) / math.sqrt(14)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = math.radians(setting.degrees)
    affine = np.eye(4)
    rotation = np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k
    # First the axes' order and signs, then the spacing of each array axis, then the rotation.
    order = geometry.reorient(Grid(SHAPE, np.eye(4)), codes)[0].affine[:3, :3]
    affine[:3, :3] = rotation @ order @ np.diag(setting.spacing)
    # The world's origin lies inside, so that all coordinates have both signs.
    affine[:3, 3] = (1.5, -2.25, 3.0) - affine[:3, :3] @ np.array(SHAPE) / 2
    return Grid(SHAPE, affine.astype(np.float32).astype(np.float64))


def coordinate(grid: Grid, axis: int) -> np.ndarray:
    """Return the world coordinate along `axis` of every voxel, shape (X, Y, Z), float64."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    return geometry.world(grid, index)[..., axis]


def interior(prepared: Grid, respaced: bool, output: Output, axes) -> tuple[slice, ...]:
    """Return the features that see neither padding nor the repeated border behind the last scan voxel."""
    box = []
    for axis in axes:
        stride, reach = output.stride[axis], output.stride[axis] - 1 if output.offset[axis] else 0
        last = prepared.shape[axis] - 1 - respaced
        box.append(slice((last - reach) // stride + 1))
    return tuple(box)


def assert_positions(found: np.ndarray, prepared: Grid, card, level: str, axis: int, respaced: bool) -> None:
    output = card.output(level)
    grid = level_grid(prepared, card, level)
    assert found.shape == (1, *grid.shape)
    box = interior(prepared, respaced, output, storage_axes(card))
    error = np.abs(found[0].astype(np.float64) - coordinate(grid, axis))[box]
    assert error.size, f"{level}: nothing left to compare"
    assert error.max() < TOLERANCE, f"{level}, world axis {axis}: off by {error.max():.3f} mm"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_features_lie_where_their_grid_says(codes, setting, encoder):
    grid = scan_grid(codes, setting)
    assert geometry.axis_codes(grid) == codes
    for axis in range(3):
        values = coordinate(grid, axis).astype(np.float32)
        crop = None if setting.crop is None else Crop(float(np.quantile(values, setting.crop)), 1.5)
        runtime = encoder(setting, crop)
        scan = Scan(values, grid, 1, 0, unit="a.u.", case="a", path=Path("a.nii"))
        volume = prepare(scan, runtime.card.preparation)
        slabs: dict[str, list[np.ndarray]] = {}
        for level, slab in encode(volume, runtime):
            slabs.setdefault(level, []).append(slab)
        for level, parts in slabs.items():
            found = np.concatenate(parts, axis=3)
            respaced = setting.target is not None
            assert_positions(found, volume.grid, runtime.card, level, axis, respaced)


WHOLE_WAY = [
    ("RAS", SETTINGS[0]),
    ("PLI", SETTINGS[2]),
    ("IRP", SETTINGS[4]),
    ("SAL", Setting("respaced, gaussian, oblique", (1.2, 0.9, 3.0), 18, "LIA", (1, 1, 1.5), 0.2, GAUSSIAN)),
]


@pytest.mark.parametrize(("codes", "setting"), WHOLE_WAY, ids=[f"{c}: {s.name}" for c, s in WHOLE_WAY])
@pytest.mark.usefixtures("_no_waiting_for_the_disk")
def test_positions_survive_files_and_the_store(codes, setting, fakes, tmp_path):
    grid = scan_grid(codes, setting)
    for axis in range(3):
        values = coordinate(grid, axis).astype(np.float32)
        # A fourth axis of one, as many converters write it.
        fakes.write_scan(tmp_path / "scans" / f"{axis}.nii.gz", values[..., None], grid.affine)
    above = None if setting.crop is None else Crop(-4.0, 2.0)
    model = tmp_path / "position.onnx"
    card = fakes.position_encoder(
        model,
        preparation=_preparation(setting, above),
        blending=setting.blending,
        input=EncoderInput("image", WINDOW, True),
    )
    options = ExtractOptions(device="cpu", threads=1, store_precision="float32")
    result = extract(model, tmp_path / "scans", tmp_path / "features.zarr", options=options)
    assert result.done == ("0", "1", "2"), result.failed
    store = FeatureStore.open(tmp_path / "features.zarr")
    for axis in range(3):
        case = store.case(str(axis))
        assert case.info.native == grid
        for output in card.outputs:
            level = case.level(output.name)
            assert level.grid == level_grid(case.info.prepared, card, output.name)
            found = level.read((0, 0, 0), level.grid.shape)
            assert_positions(found, case.info.prepared, card, output.name, axis, setting.target is not None)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_last_stored_axis_runs_along_the_body(codes, fakes):
    """Slabs are written along it, so that a longer scan has more slabs and not larger ones."""
    output = Output("l1", 1, (4, 2, 1), (1.5, 0.5, 0))
    card = fakes.make_card([output], preparation=Preparation(codes, None, Intensity("none")))
    prepared = geometry.reorient(scan_grid("PLI", SETTINGS[2]), codes)[0]
    grid = level_grid(prepared, card, "l1")
    stored = geometry.axis_codes(grid)
    assert stored[2] in "IS"
    assert sorted(stored) == sorted(codes)
    # The same features at the same places, in another order.
    plain = geometry.feature_grid(prepared, output.stride, output.offset)
    step = geometry.axis_map(plain, grid)
    assert step.axes == storage_axes(card)
    np.testing.assert_allclose((*step.scale, *step.offset), (1, 1, 1, 0, 0, 0), atol=1e-9)
    assert grid.shape == tuple(plain.shape[a] for a in step.axes)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 4), (7, 4)])
def test_padded_odd_kernels_have_offset_0(kernel, stride, fakes, tmp_path):
    """A symmetric kernel averages around voxel s * i, whatever its size."""
    pads = {"kernel_shape": [kernel] * 3, "strides": [stride] * 3, "pads": [kernel // 2] * 6}
    node = helper.make_node("Conv", ["image", "w"], ["features"], **pads)
    weights = {"w": np.full((1, 1, kernel, kernel, kernel), kernel**-3, np.float32)}
    fakes.save_model(tmp_path / "fm.onnx", [node], {"features": 1}, weights)
    output = Output("features", 1, (stride,) * 3, (0, 0, 0))
    card = fakes.make_card([output], input=EncoderInput("image", (48, 48, 48), True))
    runtime = OnnxEncoder(tmp_path / "fm.onnx", card, "cpu", 1)
    grid = scan_grid("LIP", SETTINGS[1])
    scan = Scan(coordinate(grid, 1).astype(np.float32), grid, 1, 0, unit="a.u.", case="a", path=Path("a.nii"))
    volume = prepare(scan, card.preparation)
    ((_, found),) = encode(volume, runtime)
    features = level_grid(volume.grid, card, "features")
    edge = -(-(kernel // 2) // stride)
    inner = tuple(slice(edge, (n - 1 - kernel // 2) // stride + 1) for n in volume.grid.shape)
    error = np.abs(found[0] - coordinate(features, 1))[inner]
    assert min(error.shape) > 0
    assert error.max() < TOLERANCE


def test_the_test_notices_a_wrong_offset(encoder):
    """Half a voxel off is what this table is for: make sure that it would be seen."""
    setting = SETTINGS[0]
    grid = scan_grid("RAS", setting)
    scan = Scan(coordinate(grid, 0).astype(np.float32), grid, 1, 0, unit="a.u.", case="a", path=Path("a.nii"))
    runtime = encoder(setting, None)
    volume = prepare(scan, runtime.card.preparation)
    found = np.concatenate([s for level, s in encode(volume, runtime) if level == "pool222"], axis=3)
    assert_positions(found, volume.grid, runtime.card, "pool222", 0, False)
    shifted = dataclasses.replace(runtime.card.output("pool222"), offset=(0.01, 0.5, 0.5))
    card = dataclasses.replace(runtime.card, outputs=(shifted,))
    with pytest.raises(AssertionError, match=r"off by 0\.343 mm"):
        assert_positions(found, volume.grid, card, "pool222", 0, False)
