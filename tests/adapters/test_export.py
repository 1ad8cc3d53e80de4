"""Exported graphs compute what the adapter computes, in the encoder's order of axes, or are not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from adapters.checkpoint import AdapterInfo, save_adapter
from adapters.export import ADAPTER_KEY, Exported, export_adapter, export_fused
from adapters.export import residual as translator
from adapters.export.builder import GraphBuilder
from adapters.export.residual import add_residual
from adapters.features import FeatureVolume
from adapters.inference import tile_logits
from adapters.methods import get_method, method_names
from adapters.model import Adapter, HeadRows
from adapters.task import Task, task_of_all
from featcache.card import METADATA_KEY, Blending, EncoderCard, EncoderInput, Intensity, Output, Preparation
from featcache.encode import storage_axes
from featcache.encoders import model_path
from featcache.errors import AdapterMismatchError, CardError, EncoderError, StoreError, TaskError
from featcache.extraction import ExtractOptions, extract
from featcache.onnxfile import card_path, encoder_id, inspect_model, read_card, read_metadata
from featcache.prepare import prepare
from featcache.scans import ScanSource, read_scan
from featcache.store import FeatureStore

pytestmark = pytest.mark.usefixtures("_float32", "_no_waiting_for_the_disk")
BINARY, THREE = task_of_all(["liver"]), task_of_all(["liver", "spleen", "cord"])
METHODS = method_names()
AS_IT_IS = Intensity("none")
LIA, LENGTH_FIRST = "LIA", "SRP"  # stored as (0, 2, 1), its own inverse, and as (1, 2, 0), which is not


def make_adapter(
    method: str, channels: dict[str, int], task: Task = THREE, groups: tuple[int, ...] = ()
) -> Adapter:
    """Return an adapter with random weights, none of them zero or symmetric."""
    found = get_method(method)
    random = torch.Generator().manual_seed(len(method))
    groups = groups or tuple(range(len(task.classes) + 1))
    total, width = sum(channels.values()), 5

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random) / shape[-1] ** 0.5

    head = HeadRows(draw(len(groups), total), draw(len(groups)), groups)
    if found.residual is None:
        return Adapter(task, head, channels).eval()
    adapter = Adapter(
        task,
        head,
        channels,
        projection=(draw(width, total), draw(width)),
        start=draw(len(groups), width),
        residual=found.residual(width),
        radius=found.radius,
        positions=found.positions,
    )
    with torch.no_grad():
        assert adapter.residual is not None
        for weights in adapter.residual.parameters():
            weights.copy_(torch.randn(weights.shape, generator=random) * 2 / weights[0].numel() ** 0.5)
    return adapter.eval()


def saved(folder: Path, adapter: Adapter, method: str, encoder: str = "e" * 64) -> Path:
    info = AdapterInfo(method, encoder, "a" * 64, "toy", ("a",), 0, None, (), 1, 1.0, "test")
    save_adapter(folder, adapter, info)
    return folder


def run(path: Path, **feeds: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(["logits"], feeds)[0]
    return logits


def whole_logits(adapter: Adapter, store: FeatureStore, case: str) -> np.ndarray:
    volume = FeatureVolume(store.case(case), list(adapter.channels))
    return tile_logits(adapter, volume, (0, 0, 0), volume.grid.shape).numpy()


def no_file(folder: Path) -> bool:
    return not list(folder.glob("*.onnx*")) and not list(folder.glob(".*partial*"))


# ---- alone


@pytest.mark.parametrize("task", [BINARY, THREE], ids=["binary", "three"])
@pytest.mark.parametrize("levels", [{"fine": 6}, {"coarse": 8, "fine": 6}], ids=["one", "two"])
@pytest.mark.parametrize("method", METHODS)
def test_alone_equals_predict_on_a_whole_case(
    store: FeatureStore, card: EncoderCard, tmp_path: Path, method: str, levels: dict[str, int], task: Task
) -> None:
    adapter = make_adapter(method, levels, task)
    folder = saved(tmp_path / "adapter", adapter, method)
    out = tmp_path / "new" / "adapter.onnx"
    made = export_adapter(folder, out, card=card if len(levels) > 1 else None)
    assert made.difference < 1e-5
    onnx.checker.check_model(out, full_check=True)
    assert (inspect_model(out).opset, made.opset) == (17, 17)
    case = store.case("b")
    feeds = {n: case.level(n).read((0, 0, 0), case.level(n).grid.shape)[None] for n in levels}
    if adapter.positions:
        feeds["place"] = np.array([[0, 0, 0], case.level("fine").grid.shape])
    expected = whole_logits(adapter, store, "b")
    found = run(out, **feeds)
    assert found.shape == (1, *expected.shape)
    assert np.abs(found[0] - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    document = json.loads(read_metadata(out)[ADAPTER_KEY])
    assert document == made.description
    assert document["classes"] == (["liver"] if task is BINARY else ["background", "liver", "spleen", "cord"])
    assert document["activation"] == ("sigmoid" if task is BINARY else "softmax")
    ids = (document["method"], document["encoder_id"], document["recipe_id"])
    assert ids == (method, "e" * 64, "a" * 64)


@pytest.mark.parametrize("opset", [11, 17, 18, 21])
@pytest.mark.parametrize(
    ("task", "groups"),
    [(THREE, (0, 2, 1, 0, 3, 2)), (BINARY, (0, 1, 0)), (BINARY, (1,)), (BINARY, (1, 1))],
    ids=["three", "against background", "sigmoid row", "sigmoid rows"],
)
def test_rows_of_a_head_are_summed_up_to_classes(
    fakes: Any, tmp_path: Path, task: Task, groups: tuple[int, ...], opset: int
) -> None:
    path = encoder_at(fakes, tmp_path, opset=opset)
    adapter = make_adapter("zero-shot", {"l2": 6}, task, groups)
    folder = saved(tmp_path / "adapter", adapter, "zero-shot", encoder_id(path, read_card(path)))
    made = export_fused(folder, path, tmp_path / "fused.onnx")
    assert (made.difference < 1e-5, made.opset) == (True, opset)


def test_several_levels_need_to_know_how_they_lie(tmp_path: Path, card: EncoderCard) -> None:
    folder = saved(tmp_path / "adapter", make_adapter("linear", {"fine": 6, "coarse": 8}), "linear")
    with pytest.raises(TaskError, match=r"levels \['fine', 'coarse'\].*expected --store .*or --model"):
        export_adapter(folder, tmp_path / "adapter.onnx")
    other = saved(tmp_path / "other", make_adapter("linear", {"fine": 6, "deep": 8}), "linear")
    with pytest.raises(AdapterMismatchError, match=r"'deep': 8.*the card has .*'coarse': 8"):
        export_adapter(other, tmp_path / "adapter.onnx", card=card)
    assert no_file(tmp_path)


@pytest.mark.parametrize("orientation", ["RAS", LENGTH_FIRST])
def test_levels_of_uneven_strides_in_stored_order(fakes: Any, tmp_path: Path, orientation: str) -> None:
    card = fakes.make_card(
        [Output("a", 3, (2, 1, 4), (0.5, 0, 1.5)), Output("b", 2, (4, 4, 6), (1, 0, 2.5))],
        preparation=Preparation(orientation, None, AS_IT_IS),
        input=EncoderInput("image", (24, 24, 24), True),
        blending=Blending("gaussian"),
    )
    folder = saved(tmp_path / "adapter", make_adapter("spatial", {"b": 2, "a": 3}), "spatial")
    assert export_adapter(folder, tmp_path / "adapter.onnx", card=card).difference < 1e-5


# ---- fused


def encoder_at(
    fakes: Any,
    folder: Path,
    orientation: str = "RAS",
    *,
    opset: int = 17,
    name: str = "fm.onnx",
    **changes: Any,
) -> Path:
    """Write an encoder, whose window is no cube, at an opset."""
    path = folder / name
    changes = {
        "input": EncoderInput("image", (16, 12, 8), True),
        "blending": Blending("halo", (4, 4, 2)),
    } | changes
    preparation = Preparation(orientation, None, AS_IT_IS)
    fakes.conv_encoder(path, preparation=preparation, **changes)
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)
    return path


def scan_of_one_window(fakes: Any, folder: Path, orientation: str) -> Path:
    """Write a RAS scan that fills one window (16, 12, 8) once it is in `orientation`."""
    shape = [0, 0, 0]
    for size, code in zip((16, 12, 8), orientation, strict=True):
        shape["RLAPSI".index(code) // 2] = size
    voxels = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    return fakes.write_scan(folder / "scans" / "a.nii.gz", voxels)


@pytest.mark.parametrize("orientation", ["RAS", LIA, LENGTH_FIRST])
@pytest.mark.parametrize("method", METHODS)
def test_fused_equals_predict_from_a_store(fakes: Any, tmp_path: Path, method: str, orientation: str) -> None:
    """The long way: extract, store, read, adapt; on a scan that is one window, no blending comes between."""
    path = encoder_at(fakes, tmp_path, orientation)
    card = read_card(path)
    scan = scan_of_one_window(fakes, tmp_path, orientation)
    options = ExtractOptions(device="cpu", threads=1, store_precision="float32")
    extract(path, tmp_path / "scans", tmp_path / "features.zarr", options=options)
    store = FeatureStore.open(tmp_path / "features.zarr")
    adapter = make_adapter(method, {"l3": 8, "l2": 6, "l1": 4})
    folder = saved(tmp_path / "adapter", adapter, method, store.root.encoder_id)
    made = export_fused(folder, path, tmp_path / "fused.onnx")
    assert made.difference < 1e-5
    onnx.checker.check_model(made.path, full_check=True)
    expected = whole_logits(adapter, store, "a")
    window = prepare(read_scan(ScanSource("a", (scan,)), unit="a.u."), card.preparation).voxels
    assert window.shape == (1, 16, 12, 8)
    feeds = {"image": window[None]}
    if adapter.positions:
        feeds["place"] = np.array([[0, 0, 0], [16, 12, 8]])
    found = run(made.path, **feeds)
    assert found.shape == (1, 4, 16, 12, 8)
    stored = found[0].transpose(0, *(1 + axis for axis in storage_axes(card)))
    assert np.abs(stored - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("orientation", "wrong"),
    [(LIA, "not turned"), (LENGTH_FIRST, "not turned"), (LENGTH_FIRST, "turned the other way")],
)
def test_kernels_in_the_wrong_order_are_found_out(
    fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: str, wrong: str
) -> None:
    path = encoder_at(fakes, tmp_path, orientation)
    adapter = make_adapter("spatial", {"l1": 4})
    folder = saved(tmp_path / "adapter", adapter, "spatial", encoder_id(path, read_card(path)))

    def turned(kernel: np.ndarray, axes: tuple[int, int, int]) -> np.ndarray:
        return kernel if wrong == "not turned" else kernel.transpose(0, 1, *(2 + a for a in axes))

    monkeypatch.setattr(translator, "turned", turned)
    with pytest.raises(EncoderError, match=r"differ from the adapter's by .*expected at most 0.001"):
        export_fused(folder, path, tmp_path / "fused" / "adapter.onnx")
    assert no_file(tmp_path / "fused")


def test_the_card_stays_and_the_own_head_goes(fakes: Any, tmp_path: Path) -> None:
    path = encoder_at(fakes, tmp_path)
    model = onnx.load(path)
    model.metadata_props.add(key="vendor", value="kept")
    onnx.save(model, path)
    card = read_card(path)
    folder = saved(
        tmp_path / "adapter", make_adapter("spatial", {"l2": 6}), "spatial", encoder_id(path, card)
    )
    out = export_fused(folder, path, tmp_path / "fused.onnx").path
    found = read_metadata(out)
    assert sorted(found) == sorted([METADATA_KEY, ADAPTER_KEY, "vendor"])
    assert read_card(out) == card
    document = json.loads(found[ADAPTER_KEY])
    level = {"name": "l2", "channels": 6, "stride": [2, 2, 2], "offset": [0.0, 0.0, 0.0]}
    assert (document["levels"], document["grid"], document["axes"]) == ([level], "l2", "RAS")
    info = inspect_model(out)
    assert [(i.name, i.shape) for i in info.inputs] == [("image", (1, 1, "x", "y", "z"))]
    assert [(o.name, o.shape) for o in info.outputs] == [("logits", (1, 4, "l2_x", "l2_y", "l2_z"))]
    weights = {tensor.name for tensor in onnx.load(out).graph.initializer}
    assert weights & {"w1", "w2", "w3", "w4"} == {"w1", "w2"}


def test_a_level_called_logits_and_one_of_half_precision(fakes: Any, tmp_path: Path) -> None:
    path = tmp_path / "fm.onnx"
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["logits"], kernel_shape=[3] * 3, pads=[1] * 6),
        helper.make_node("Cast", ["logits"], ["half"], to=TensorProto.FLOAT16),
    ]
    fakes.save_model(path, nodes, {"logits": 4, "half": 4}, fakes.conv_weights())
    model = onnx.load(path)
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    card = fakes.make_card([Output(n, 4, (1, 1, 1), (0, 0, 0)) for n in ("logits", "half")])
    card_path(path).write_text(json.dumps(card.to_json()), "utf-8")
    adapter = make_adapter("spatial", {"logits": 4, "half": 4})
    folder = saved(tmp_path / "adapter", adapter, "spatial", encoder_id(path, read_card(path)))
    out = tmp_path / "fused.onnx"
    assert export_fused(folder, path, out).difference < 1e-4
    assert read_card(out) == card, "the card beside the model travels inside"


def test_a_fixed_window_and_weights_in_a_file_beside(fakes: Any, tmp_path: Path) -> None:
    size = (16, 12, 8)
    path = encoder_at(fakes, tmp_path, LIA, size=size, input=EncoderInput("image", size, False))
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert inspect_model(path).external_files == (tmp_path / "weights.bin",)
    identity = encoder_id(path, read_card(path))
    folder = saved(tmp_path / "adapter", make_adapter("spatial", {"l1": 4, "l3": 8}), "spatial", identity)
    made = export_fused(folder, path, tmp_path / "elsewhere" / "fused.onnx")
    (tmp_path / "weights.bin").unlink()
    assert (made.data, made.difference < 1e-5) == (tmp_path / "elsewhere" / "fused.onnx.data", True)
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == ["fused.onnx", "fused.onnx.data"]
    assert run(made.path, image=np.zeros((1, 1, *size), np.float32)).shape == (1, 4, *size)
    with pytest.raises(EncoderError, match=r"weights lie in this file, which cannot be read"):
        export_fused(folder, path, tmp_path / "again.onnx")
    assert no_file(tmp_path / "adapter")


def test_another_encoder_or_card_is_refused(fakes: Any, tmp_path: Path) -> None:
    path = encoder_at(fakes, tmp_path)
    folder = saved(
        tmp_path / "adapter", make_adapter("linear", {"l1": 4}), "linear", encoder_id(path, read_card(path))
    )
    other = encoder_at(fakes, tmp_path, seed=1, name="other.onnx")
    turned = encoder_at(fakes, tmp_path, LIA, name="turned.onnx")
    for wrong in (other, turned, "builtin"):
        with pytest.raises(
            AdapterMismatchError, match=r"is encoder .*the adapter was trained on features of"
        ):
            export_fused(folder, wrong, tmp_path / "out" / "fused.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(CardError, match="no encoder card"):
        export_fused(folder, tmp_path / "bare.onnx", tmp_path / "out" / "fused.onnx")
    assert not (tmp_path / "out").exists()


def test_the_built_in_encoder_goes_by_its_name(tmp_path: Path) -> None:
    path = model_path("builtin")
    card = read_card(path)
    adapter = make_adapter("context", {o.name: o.channels for o in card.outputs})
    folder = saved(tmp_path / "adapter", adapter, "context", encoder_id(path, card))
    made = export_fused(folder, "builtin", tmp_path / "fused.onnx")
    assert made.difference < 1e-4
    assert made.description["axes"] == "RAS"
    assert [i.name for i in inspect_model(made.path).inputs] == ["image", "place"]


def test_an_old_opset_is_refused(fakes: Any, tmp_path: Path) -> None:
    path = encoder_at(fakes, tmp_path, opset=10)
    folder = saved(
        tmp_path / "adapter", make_adapter("linear", {"l1": 4}), "linear", encoder_id(path, read_card(path))
    )
    with pytest.raises(EncoderError, match=r"found opset 10 .*expected opset 11 or newer"):
        export_fused(folder, path, tmp_path / "fused.onnx")


# ---- writing


def test_nothing_is_overwritten_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "adapter", make_adapter("linear", {"fine": 6}), "linear")
    out = tmp_path / "there.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(AdapterMismatchError, match=r"--out .*there.onnx exists"):
        export_adapter(folder, out)
    with pytest.raises(AdapterMismatchError, match=r"--out .*there.onnx exists"):
        export_fused(folder, "builtin", out)
    assert out.read_bytes() == b"mine"
    with pytest.raises(StoreError, match=r"--out .*could not be written"):
        export_adapter(folder, out / "below.onnx")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save", full)
    (tmp_path / "full").mkdir()
    with pytest.raises(StoreError, match=r"No space left.*free some space"):
        export_adapter(folder, tmp_path / "full" / "adapter.onnx")
    assert no_file(tmp_path / "full")


# ---- residuals


def translated(module: nn.Module, axes: tuple[int, int, int] = (0, 1, 2)) -> onnx.ModelProto:
    builder = GraphBuilder(17)
    output = add_residual(builder, module, "x", axes, "mine")
    builder.nodes.append(helper.make_node("Identity", [output], ["logits"]))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 5) for n in ("x", "logits")]
    graph = helper.make_graph(builder.nodes, "residual", values[:1], values[1:], builder.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Skip(nn.Module):
    """A sum beside a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv3d(3, 4, (3, 1, 5), padding="same", dilation=(1, 2, 3)),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.5),
            nn.Conv3d(4, 3, (1, 2, 3), padding="same"),
        )
        self.beside = nn.Conv3d(3, 3, (3, 5, 1), padding=(1, 2, 0), groups=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x)) + nn.functional.relu(self.beside(x))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 0, 1)])
def test_any_kernel_dilation_and_sum(tmp_path: Path, axes: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    module = Skip().eval()
    x = torch.randn(2, 3, 9, 8, 7)
    with torch.no_grad():
        expected = module(x).numpy()
    onnx.save(translated(module, axes), tmp_path / "residual.onnx")
    turned = np.moveaxis(x.numpy(), [2, 3, 4], [2 + a for a in axes])
    found = run(tmp_path / "residual.onnx", x=turned).transpose(0, 1, *(2 + a for a in axes))
    assert np.abs(found - expected).max() < 1e-5


class Gate(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.mean() > 0 else -x


class Shift(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.Sequential(nn.Conv3d(3, 3, 1), nn.InstanceNorm3d(3)), "it holds InstanceNorm3d"),
        (nn.Conv3d(3, 3, 3, stride=2, padding=1), r"it holds Conv3d.*neither stride 1"),
        (nn.Conv3d(3, 3, 3, padding=1, padding_mode="reflect"), r"it holds Conv3d.*reflect"),
        (Gate(), "it computes .*sigmoid"),
        (Shift(), "it computes .*add"),
        (Branch(), "its computation depends on its input"),
    ],
)
def test_what_cannot_be_translated_names_the_method(module: nn.Module, why: str) -> None:
    with pytest.raises(TaskError, match=rf"method 'mine' cannot be exported: {why}"):
        translated(module)


def test_a_head_without_a_row_for_a_class_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "adapter", make_adapter("linear", {"fine": 6}, THREE, (1, 2, 3)), "linear")
    with pytest.raises(TaskError, match=r"'linear' cannot be exported: its head has no row for 'background'"):
        export_adapter(folder, tmp_path / "adapter.onnx")
    assert no_file(tmp_path)


def test_the_result_says_what_was_written(fakes: Any, tmp_path: Path) -> None:
    path = encoder_at(fakes, tmp_path)
    folder = saved(
        tmp_path / "adapter", make_adapter("linear", {"l1": 4}), "linear", encoder_id(path, read_card(path))
    )
    made = export_fused(str(folder), str(path), str(tmp_path / "fused.onnx"))
    assert isinstance(made, Exported)
    assert (made.path, made.data, made.opset) == (tmp_path / "fused.onnx", None, 17)
