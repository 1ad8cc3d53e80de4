"""What the doctor finds on machines that are broken on purpose."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from featcache import doctor
from featcache.doctor import Finding, Request, examine
from featcache.runtime import providers

REQUEST = Request()


@pytest.fixture
def installed(monkeypatch):
    """Return a dict of versions and one of top-level names, both in place of what is installed."""
    versions = {
        "zarr": "3.1.6",
        "numcodecs": "0.16",
        "nibabel": "5.4",
        "SimpleITK": "2.5",
        "torch": "2.9",
        "onnxruntime-gpu": "1.23",
    }
    owners = {"featcache": ["featcache"], "adapters": ["featcache"], "cli": ["featcache"]}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    return versions, owners


def problems(check, request=REQUEST):
    found = [finding for finding in check(request) if finding.level == "problem"]
    assert all(finding.advice for finding in found), "a problem says what to do"
    return found


def test_what_is_whole_is_no_problem(installed):
    for check in (doctor.versions, doctor.runtime_package, doctor.name_clashes):
        assert problems(check) == []


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [("zarr", "2.18.3", "need zarr 3"), ("zarr", None, "not installed"), ("torch", None, "not installed")],
)
def test_packages_that_do_not_do(installed, name, version, words):
    del installed[0][name]
    if version is not None:
        installed[0][name] = version
    (found,) = problems(doctor.versions)
    assert found.check == name
    assert words in found.text


def test_two_onnx_runtimes_overwrite_each_other(installed):
    installed[0]["onnxruntime"] = "1.22"
    (found,) = problems(doctor.runtime_package)
    assert "onnxruntime 1.22, onnxruntime-gpu 1.23" in found.text
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found.advice
    del installed[0]["onnxruntime"], installed[0]["onnxruntime-gpu"]
    assert problems(doctor.runtime_package)[0].text == "not installed"


@pytest.mark.parametrize("name", ["adapters", "cli"])
@pytest.mark.parametrize("both", [True, False])
def test_another_package_of_our_name(installed, name, both):
    installed[1][name] = ["other-tool", "featcache"] if both else ["other-tool"]
    (found,) = problems(doctor.name_clashes)
    assert found.text == f"other-tool installs a package {name!r} too"
    assert "pip uninstall other-tool" in found.advice


class Session:
    """A session that uses what it is told to, whatever was asked."""

    used = ("CPUExecutionProvider",)

    def __init__(self, *args, **options):
        print("falling back")  # noqa: T201

    def get_providers(self):
        return list(self.used)

    def run(self, names, values):
        return [-values["x"]]


def test_a_silent_fallback_is_seen(monkeypatch, capsys):
    monkeypatch.setattr(providers.ort, "InferenceSession", Session)
    fault = providers.provider_fault("CUDAExecutionProvider")
    assert fault == "asked for CUDAExecutionProvider, ONNX Runtime uses CPUExecutionProvider"
    assert providers.provider_fault("CPUExecutionProvider") is None
    assert capsys.readouterr().out == ""


def test_the_cpu_really_works():
    assert "CPUExecutionProvider" in providers.listed_providers()
    assert providers.provider_fault("CPUExecutionProvider") is None


@pytest.mark.parametrize(
    ("gpus", "name", "level", "words"),
    [
        (0, "CUDAExecutionProvider", "note", "no NVIDIA GPU"),
        (1, "CUDAExecutionProvider", "problem", "not usable: it is broken"),
        (1, "TensorrtExecutionProvider", "note", "not usable: it is broken"),
        (0, "CPUExecutionProvider", "problem", "not usable: it is broken"),
    ],
)
def test_what_a_provider_that_does_not_work_means(monkeypatch, gpus, name, level, words):
    monkeypatch.setattr(doctor, "cuda_device_count", lambda: gpus)
    monkeypatch.setattr(providers, "listed_providers", lambda: [name])
    monkeypatch.setattr(providers, "provider_fault", lambda asked: "it is broken")
    (found,) = doctor.providers(REQUEST)
    assert (found.check, found.level) == (name, level)
    assert words in found.text
    assert bool(found.advice) == (level == "problem")


def test_cores_memory_and_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 2 * 10**9)
    monkeypatch.setattr(doctor, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr(doctor, "free_bytes", lambda place: 10**9)
    cores, bf16, memory = doctor.processor(REQUEST)
    assert (cores.level, "2 of 64" in cores.text) == ("note", True)
    assert bf16 == Finding("CPU bf16", "ok", "avx512_bf16")
    assert (memory.level, memory.text) == ("note", "2 GB")
    (disk,) = doctor.disk(Request(out=tmp_path / "x.zarr"))
    assert (disk.level, disk.text) == ("note", f"1 GB at {tmp_path / 'x.zarr'}")


def test_an_encoder_is_timed_or_its_fault_told(fakes, tmp_path, monkeypatch):
    fakes.conv_encoder(tmp_path / "fm.onnx")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)  # OpenVINO is an extra
    (found,) = doctor.timed_window(Request(tmp_path / "fm.onnx"))
    assert found.level == "ok"
    assert found.text.startswith("fm.onnx: a window of 16 x 16 x 16 takes ")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    (fault,) = problems(doctor.timed_window, Request(tmp_path / "bad.onnx"))
    assert "bad.onnx" in fault.text


def test_every_check_is_asked_in_order(monkeypatch):
    def check(name):
        def look(request):
            yield Finding(name, "ok", str(request.out))

        return look

    monkeypatch.setattr(doctor, "CHECKS", (check("a"), check("b")))
    assert examine(Request(out=Path("here"))) == [Finding("a", "ok", "here"), Finding("b", "ok", "here")]
