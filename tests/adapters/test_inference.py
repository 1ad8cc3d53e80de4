"""Tiles and slabs change nothing; masks lie where the features do; cached equals live."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from adapters import inference
from adapters.features import FeatureVolume
from adapters.inference import segment, tile_logits
from adapters.model import Adapter, HeadRows, Residual
from adapters.postprocess import largest_components
from adapters.segmenter import FittedSegmenter
from adapters.task import Task, parse_classes
from featcache import geometry
from featcache.card import Blending, Crop, Intensity, Output, Preparation
from featcache.encode import encode, level_grid
from featcache.geometry import Grid, whole, world
from featcache.prepare import prepare
from featcache.runtime.onnxruntime import OnnxEncoder
from featcache.scans import Scan
from featcache.store import CaseInfo, FeatureStore, RootDocument, StoreWriter

pytestmark = pytest.mark.usefixtures("_float32")
CHANNELS = {"fine": 6, "coarse": 8}
TWO, ONE = parse_classes("liver,spleen"), parse_classes("liver")


def make_adapter(task: Task, channels: dict[str, int], kernel: int | None) -> Adapter:
    """Return an adapter with random weights everywhere, its residual well away from zero."""
    torch.manual_seed(0)
    count, rows = sum(channels.values()), task.channels
    head = HeadRows(torch.randn(rows, count), torch.randn(rows), tuple(range(rows)) if rows > 1 else (1,))
    if kernel is None:
        return Adapter(task, head, channels).eval()
    residual = Residual(5, kernel)
    torch.nn.init.normal_(residual.last.weight, std=0.3)
    projection = (torch.randn(5, count) * 0.3, torch.randn(5))
    start, radius = torch.randn(rows, 5), kernel - 1
    return Adapter(
        task, head, channels, projection=projection, start=start, residual=residual, radius=radius
    ).eval()


@pytest.fixture(scope="module")
def case(store: FeatureStore, synthetic: SimpleNamespace) -> Any:
    """Return a case of the store, read into memory."""
    stored = store.case("b")
    levels = {
        n: (stored.level(n).grid, stored.level(n).read((0, 0, 0), stored.level(n).grid.shape))
        for n in CHANNELS
    }
    return synthetic.MemoryCase(levels, stored.info)


@pytest.mark.parametrize("kernel", [None, 1, 3], ids=["linear", "pointwise", "spatial"])
def test_tiles_leave_no_seams(case: Any, kernel: int | None) -> None:
    adapter = make_adapter(TWO, CHANNELS, kernel)
    volume = FeatureVolume(case, list(CHANNELS))
    whole = tile_logits(adapter, volume, (0, 0, 0), volume.grid.shape)
    assert whole.shape == (3, *volume.grid.shape)
    for start, stop in [((0, 0, 0), (5, 4, 3)), ((5, 3, 2), (9, 11, 12)), ((10, 9, 8), volume.grid.shape)]:
        x, y, z = (slice(a, b) for a, b in zip(start, stop, strict=True))
        assert (tile_logits(adapter, volume, start, stop) - whole[:, x, y, z]).abs().max() < 1e-3


def _logits_on_native(adapter: Adapter, case: Any) -> np.ndarray:
    """Return logits at the scan's voxels, of the whole volume at once, by scipy."""
    volume = FeatureVolume(case, list(adapter.channels))
    logits = tile_logits(adapter, volume, (0, 0, 0), volume.grid.shape).numpy()
    native = case.info.native
    places = world(native, np.moveaxis(np.indices(native.shape), 0, -1))
    inverse = np.linalg.inv(volume.grid.affine)
    index = np.moveaxis(places @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    return np.stack([ndimage.map_coordinates(v, index, order=1, mode="nearest") for v in logits])


def _decided(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the label map, and where it is decided by more than what float16 rounds off."""
    if len(logits) == 1:
        return (logits[0] > 0).astype(np.uint8), np.abs(logits[0]) > 0.02
    ordered = np.sort(logits, 0)
    return logits.argmax(0), ordered[-1] - ordered[-2] > 0.02


@pytest.mark.parametrize("task", [ONE, TWO], ids=["binary", "two classes"])
@pytest.mark.parametrize("kernel", [None, 3])
@pytest.mark.parametrize(("tile", "slab"), [(64, 32), (5, 3), (4, 1)])
def test_segment_equals_the_whole_volume_at_once(
    case: Any, monkeypatch: pytest.MonkeyPatch, task: Task, kernel: int | None, tile: int, slab: int
) -> None:
    monkeypatch.setattr(inference, "_TILE", tile)
    monkeypatch.setattr(inference, "_SLAB", slab)
    adapter = make_adapter(task, CHANNELS, kernel)
    expected, clear = _decided(_logits_on_native(adapter, case))
    found = segment(adapter, case)
    assert clear.mean() > 0.95
    assert np.array_equal(found.values[clear], expected[clear])
    assert found.grid == case.info.native
    assert found.values.dtype == np.uint8
    assert found.classes == task.values
    assert len(np.unique(found.values)) == len(task.classes) + 1


@pytest.mark.parametrize("task", [ONE, TWO], ids=["binary", "two classes"])
@pytest.mark.parametrize("kernel", [None, 3])
@pytest.mark.parametrize(("tile", "slab"), [(64, 32), (5, 3)])
def test_probabilities_of_the_logits_that_decide(
    case: Any, monkeypatch: pytest.MonkeyPatch, task: Task, kernel: int | None, tile: int, slab: int
) -> None:
    monkeypatch.setattr(inference, "_TILE", tile)
    monkeypatch.setattr(inference, "_SLAB", slab)
    adapter = make_adapter(task, CHANNELS, kernel)
    logits = _logits_on_native(adapter, case).astype(np.float64)
    shares = np.exp(logits - logits.max(0))
    expected = (shares / shares.sum(0))[1:] if task is TWO else 1 / (1 + np.exp(-logits))
    found = FittedSegmenter(adapter, None).probabilities(case)  # type: ignore[arg-type]
    assert found.shape == (*case.info.native.shape, len(task.classes))
    assert found.dtype == np.float32
    # float16 keeps slabs of logits; a logit that is off by d moves a probability by d / 4 at most.
    assert np.abs(np.moveaxis(found, -1, 0) - expected).max() < 0.01
    assert np.abs(np.moveaxis(found, -1, 0) - expected).mean() < 1e-3
    assert expected.std() > 0.1, "a case on which they could differ"
    values = segment(adapter, case).values
    if task is ONE:
        assert np.array_equal(found[..., 0] > 0.5, values == 1)
        return
    all_shares = np.concatenate([1 - found.sum(-1, keepdims=True), found], -1)
    ordered = np.sort(all_shares, -1)
    clear = ordered[..., -1] - ordered[..., -2] > 1e-5
    assert clear.mean() > 0.99
    assert np.array_equal(all_shares.argmax(-1)[clear], values[clear])


def test_probabilities_come_in_slabs_and_change_no_mask(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_SLAB", 3)
    segmenter = FittedSegmenter(make_adapter(TWO, CHANNELS, 3), None)  # type: ignore[arg-type]
    boxes: list[tuple[slice, ...]] = []
    times = np.zeros(case.info.native.shape, int)

    def take(box: tuple[slice, ...], part: np.ndarray) -> None:
        boxes.append(box)
        times[box] += 1
        assert part.shape == (*times[box].shape, 2)

    found = segmenter.predict(case, on_probabilities=take)
    assert np.array_equal(found.values, segmenter.predict(case).values)
    assert len(boxes) > 3
    assert (times == 1).all()


def test_the_largest_component_is_kept_when_asked_for(case: Any) -> None:
    segmenter = FittedSegmenter(make_adapter(TWO, CHANNELS, None), None)  # type: ignore[arg-type]
    plain = segmenter.predict(case)
    counts = [ndimage.label(plain.values == v, np.ones((3, 3, 3)))[1] for v in (1, 2)]
    assert max(counts) > 1
    kept = segmenter.predict(case, largest_component=True)
    assert np.array_equal(kept.values, largest_components(plain).values)
    assert [ndimage.label(kept.values == v, np.ones((3, 3, 3)))[1] for v in (1, 2)] == [1, 1]


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRP", "AIL"])
@pytest.mark.parametrize("target", [None, 1.6, 6.0])
def test_outside_the_crop_is_background(
    synthetic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, codes: str, target: float | None
) -> None:
    """Features that are above zero everywhere: the mask is the crop box, exactly."""
    monkeypatch.setattr(inference, "_SLAB", 4)
    native, _ = geometry.reorient(Grid((15, 13, 17), np.diag([1.0, 1.6, 0.8, 1.0])), codes)
    voxels = np.zeros(native.shape, np.float32)
    box = (slice(3, 11), slice(2, 9), slice(5, 12))
    voxels[box] = 1
    scan = Scan(voxels, native, 1, 0, unit="a.u.", case="a", path="a.nii")  # type: ignore[arg-type]
    spacing = None if target is None else (target / 2,) * 3
    prepared = prepare(scan, Preparation("RAS", spacing, Intensity("none"), Crop(0.5)))
    grid = geometry.feature_grid(prepared.grid, (2, 2, 2), (0.5, 0.5, 0.5))
    info = CaseInfo(native, (1, 0), prepared.grid, "a.u.", prepared.foreground)
    case = synthetic.MemoryCase({"f": (grid, np.ones((1, *grid.shape), np.float32))}, info)
    adapter = Adapter(ONE, HeadRows(torch.ones(1, 1), torch.zeros(1), (1,)), {"f": 1})
    expected = np.zeros(native.shape, np.uint8)
    expected[box] = 1
    assert np.array_equal(segment(adapter, case).values, expected)
    likely = FittedSegmenter(adapter, None).probabilities(case)[..., 0]  # type: ignore[arg-type]
    assert np.allclose(likely, expected / (1 + np.exp(-1)))
    assert not likely[expected == 0].any()


@pytest.mark.parametrize("kernel", [None, 3])
def test_cached_equals_live(
    fakes: Any, synthetic: SimpleNamespace, tmp_path: Any, kernel: int | None
) -> None:
    """Encoding and adapting in memory, float32, against the same through a float16 and a float32 store."""
    model = tmp_path / "fm.onnx"
    card = fakes.conv_encoder(model)
    native = Grid((21, 18, 23), np.diag([1.0, -1.5, 2.0, 1.0]))
    voxels = np.random.default_rng(0).normal(size=native.shape).astype(np.float32)
    scan = Scan(voxels, native, 1, 0, unit="a.u.", case="a", path=model)
    volume = prepare(scan, card.preparation)
    parts: dict[str, list[np.ndarray]] = {}
    for level, slab in encode(volume, OnnxEncoder(model, card, "cpu", threads=1)):
        parts.setdefault(level, []).append(slab)
    live_levels = {
        name: (level_grid(volume.grid, card, name), np.concatenate(slabs, 3)) for name, slabs in parts.items()
    }
    info = CaseInfo(native, (1, 0), volume.grid, "a.u.", volume.foreground)
    live = synthetic.MemoryCase(live_levels, info)
    adapter = make_adapter(TWO, {o.name: o.channels for o in card.outputs}, kernel)
    logits = {"live": _tile(adapter, live)}
    for precision in ("float16", "float32"):
        path = tmp_path / precision
        root = RootDocument("e" * 64, "a" * 64, card.to_json(), {}, "test")
        with (
            synthetic.no_waiting(),
            StoreWriter.open(path, root) as writer,
            writer.new_case("a", info) as new,
        ):
            for name, (grid, values) in live_levels.items():
                new.level(name, grid, len(values), precision).append(values)
            new.commit()
        case = FeatureStore.open(path).case("a")
        logits[precision] = _tile(adapter, case)
        if precision == "float32":
            assert np.array_equal(segment(adapter, case).values, segment(adapter, live).values)
        else:
            changed = segment(adapter, case).values != segment(adapter, live).values
            assert changed.mean() < 2e-3
    scale = logits["live"].std()
    assert np.array_equal(logits["float32"], logits["live"])
    # float16 keeps 11 bits: features are off by at most 2^-11 of themselves, logits by a little of their spread.
    assert np.abs(logits["float16"] - logits["live"]).max() < 5e-3 * scale
    assert not np.array_equal(logits["float16"], logits["live"])


def _tile(adapter: Adapter, case: Any) -> np.ndarray:
    volume = FeatureVolume(case, list(adapter.channels))
    return tile_logits(adapter, volume, (0, 0, 0), volume.grid.shape).numpy()


def test_huge_logits_are_decided_rightly(synthetic: SimpleNamespace) -> None:
    """Logits beyond float16 must not turn into NaN where slabs are interpolated."""
    native = Grid((6, 6, 6), np.eye(4))
    grid = geometry.feature_grid(native, (2, 2, 2), (0.5, 0.5, 0.5))
    values = np.where(np.arange(3)[:, None, None] > 0, 3e5, -3e5) * np.ones((1, *grid.shape))
    info = CaseInfo(native, (1, 0), native, "a.u.", whole(native))
    case = synthetic.MemoryCase({"f": (grid, values.astype(np.float32))}, info)
    rows = HeadRows(torch.tensor([[0.0], [1.0], [-1.0]]), torch.zeros(3), (0, 1, 2))
    found = segment(Adapter(TWO, rows, {"f": 1}), case).values
    assert (found[:2] == 2).all()
    assert (found[3:] == 1).all()


def test_what_all_logits_share_decides_nothing(case: Any) -> None:
    """Far from zero float16 is coarse: 16 apart at 30 000."""
    plain, far = make_adapter(TWO, CHANNELS, None), make_adapter(TWO, CHANNELS, None)
    assert far.head.bias is not None
    with torch.no_grad():
        far.head.bias += 30_000
    assert (segment(plain, case).values != segment(far, case).values).mean() < 2e-3


def test_output_of_a_wide_stride(synthetic: SimpleNamespace, fakes: Any, tmp_path: Any) -> None:
    """A level coarser than the scan is tall still makes a mask of the scan's shape."""
    deep = Output("deep", 4, (16, 16, 16), (7.5, 7.5, 7.5))
    card = fakes.make_card([deep], blending=Blending("gaussian"))
    store = synthetic.make_store(tmp_path / "features.zarr", card, cases=("a",))
    found = segment(make_adapter(TWO, {"deep": 4}, 3), store.case("a"))
    assert found.values.shape == synthetic.NATIVE.shape


@pytest.mark.parametrize("codes", ["RAS", "LPI", "IRP", "SLA"])
def test_each_tile_is_computed_once(
    synthetic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, codes: str
) -> None:
    """Whichever way the scan lies, features are read once and few slabs are kept."""
    monkeypatch.setattr(inference, "_TILE", 4)
    monkeypatch.setattr(inference, "_SLAB", 3)
    native, _ = geometry.reorient(Grid((14, 13, 17), np.eye(4)), codes)
    grid = geometry.feature_grid(geometry.reorient(native, "RAS")[0], (1, 1, 1), (0, 0, 0))
    values = np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float32)
    case = synthetic.MemoryCase({"f": (grid, values)}, CaseInfo(native, (1, 0), grid, "a.u.", whole(native)))
    seen: list[Any] = []

    def spy(adapter: Adapter, volume: FeatureVolume, start: Any, stop: Any) -> torch.Tensor:
        seen.append(start)
        return tile_logits(adapter, volume, start, stop)

    monkeypatch.setattr(inference, "tile_logits", spy)
    segment(make_adapter(TWO, {"f": 2}, None), case)
    assert len(seen) == len(set(seen)) == np.prod([-(-n // 4) for n in grid.shape])
