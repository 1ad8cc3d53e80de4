"""What works on this machine: packages, ONNX Runtime's providers, memory, disk, and one timed window."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from featcache.errors import FeatcacheError
from featcache.machine import cpu_flags, free_bytes, memory_bytes, usable_cores
from featcache.runtime.devices import cuda_device_count
from featcache.text import size_text

if TYPE_CHECKING:
    from featcache.runtime import Runtime

Level = Literal["ok", "note", "problem"]

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_PACKAGES = ("zarr", "numcodecs", "nibabel", "SimpleITK", "torch")
_OUR_NAMES = ("featcache", "adapters", "cli")
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
_LITTLE_MEMORY, _LITTLE_DISK = 4e9, 5e9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    check : str
        What, in a word or two.
    level : {"ok", "note", "problem"}
        ``note``: worth to know, nothing is broken.
    text : str
        What was found.
    advice : str
        What to do about a problem.
    """

    check: str
    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Request:
    """What `examine` is asked about: the encoder to time, and the place where a store is to lie."""

    model: Path | str = "builtin"
    out: Path = Path()


Check = Callable[[Request], Iterator[Finding]]


def examine(request: Request | None = None) -> list[Finding]:
    """Return what every check finds, in order; a finding for whatever is broken, never an error."""
    request = request or Request()
    return [finding for check in CHECKS for finding in check(request)]


def versions(request: Request) -> Iterator[Finding]:
    """Tell the versions of Python and of the packages that extraction stands on."""
    yield Finding("Python", "ok", platform.python_version())
    for name in _PACKAGES:
        found = _version(name)
        if found is None:
            yield Finding(name, "problem", "not installed", "install featcache again with its dependencies")
        elif name == "zarr" and found.split(".")[0] in ("0", "1", "2"):
            advice = (
                "pip install 'zarr>=3.1,<4', in an environment of its own if another package needs zarr 2"
            )
            yield Finding(name, "problem", f"{found}: stores need zarr 3", advice)
        else:
            yield Finding(name, "ok", found)


def runtime_package(request: Request) -> Iterator[Finding]:
    """Tell which ONNX Runtime is installed; two of them overwrite each other's files."""
    found = {name: version for name in _RUNTIMES if (version := _version(name)) is not None}
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    if not found:
        advice = "install featcache again with its dependencies"
        yield Finding("ONNX Runtime", "problem", "not installed", advice)
    elif len(found) > 1:
        advice = (
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them: onnxruntime-gpu where there is an "
            "NVIDIA GPU"
        )
        yield Finding("ONNX Runtime", "problem", f"{text}: one overwrites files of the other", advice)
    else:
        yield Finding("ONNX Runtime", "ok", text)


def name_clashes(request: Request) -> Iterator[Finding]:
    """Tell whether another distribution installs a top-level package of one of our names."""
    owners = importlib.metadata.packages_distributions()
    clashing = False
    for name in _OUR_NAMES:
        others = sorted(set(owners.get(name, ())) - {"featcache"})
        if others:
            clashing = True
            advice = f"pip uninstall {' '.join(others)} (or keep it elsewhere), then install featcache again"
            yield Finding("names", "problem", f"{', '.join(others)} installs a package {name!r} too", advice)
    if not clashing:
        yield Finding(
            "names", "ok", f"no other package is called {', '.join(_OUR_NAMES[:-1])} or {_OUR_NAMES[-1]}"
        )


def providers(request: Request) -> Iterator[Finding]:
    """Tell which of the providers that ONNX Runtime lists really run a model."""
    try:
        from featcache.runtime.providers import listed_providers, provider_fault
    except ImportError as error:
        yield Finding("provider", "problem", f"ONNX Runtime cannot be imported: {error}", "install it again")
        return
    gpus = cuda_device_count()
    for name in listed_providers():
        fault = provider_fault(name)
        if fault is None:
            yield Finding(name, "ok", "works")
        elif name == "CPUExecutionProvider":
            yield Finding(name, "problem", f"not usable: {fault}", "install ONNX Runtime again")
        elif name == "CUDAExecutionProvider" and gpus:
            advice = (
                "install the CUDA and cuDNN versions that this onnxruntime-gpu names, or use --device cpu"
            )
            yield Finding(name, "problem", f"not usable: {fault}", advice)
        else:
            why = fault if gpus else "no NVIDIA GPU, or no driver for it"
            yield Finding(name, "note", f"not usable: {why}")


def torch_cuda(request: Request) -> Iterator[Finding]:
    """Tell whether adapters can be trained on a GPU."""
    if _version("torch") is None:
        return  # told with the versions
    try:
        torch = importlib.import_module("torch")
        usable = bool(torch.cuda.is_available())
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("torch", "problem", f"cannot be imported: {error}", "install torch again")
        return
    if usable:
        yield Finding("torch CUDA", "ok", f"yes: {torch.cuda.get_device_name(0)}")
    elif cuda_device_count():
        yield Finding(
            "torch CUDA",
            "note",
            "no, though there is a GPU: this torch is built without CUDA, or for another",
        )
    else:
        yield Finding("torch CUDA", "note", "no: adapters are trained on the CPU")


def processor(request: Request) -> Iterator[Finding]:
    """Tell the usable cores, whether the CPU computes in bf16, and the memory."""
    usable, there = usable_cores(), os.cpu_count() or 1
    if usable < there:
        text = f"{usable} of {there} are this process' own (affinity, control group)"
        yield Finding("cores", "note", text)
    else:
        yield Finding("cores", "ok", str(usable))
    flags = [flag for flag in _BF16 if flag in cpu_flags()]
    yield Finding("CPU bf16", "ok" if flags else "note", ", ".join(flags) or "no")
    memory = memory_bytes()
    if memory is None:
        yield Finding("memory", "note", "unknown")
    else:
        yield Finding("memory", "note" if memory < _LITTLE_MEMORY else "ok", size_text(memory))


def disk(request: Request) -> Iterator[Finding]:
    """Tell the free space where the store is to lie."""
    free = free_bytes(request.out)
    level: Level = "note" if free < _LITTLE_DISK else "ok"
    yield Finding("free disk", level, f"{size_text(free)} at {request.out.resolve()}")


def timed_window(request: Request) -> Iterator[Finding]:
    """Tell how long a window of the encoder takes, after one to warm up, by each runtime that is installed."""
    from featcache.encoders import model_path
    from featcache.onnxfile import read_card
    from featcache.runtime import open_encoder
    from featcache.runtime.encoder import golden_input

    name = Path(request.model).name
    runtimes: list[Runtime] = ["onnxruntime"]
    if find_spec("openvino") is not None:
        runtimes.append("openvino")
    try:
        path = model_path(request.model)
        card = read_card(path)
        window = golden_input(card.input.window)
        size = " x ".join(map(str, card.input.window))
        for runtime in runtimes:
            encoder = open_encoder(path, card, runtime=runtime)
            encoder(window)
            begun = time.perf_counter()
            encoder(window)
            seconds = time.perf_counter() - begun
            text = f"{name}: a window of {size} takes {seconds:.3g} s on {encoder.device}"
            yield Finding(
                "encoder", "ok", text if runtime == "onnxruntime" else f"{text} with --runtime {runtime}"
            )
    except (FeatcacheError, ImportError) as error:
        yield Finding(
            "encoder",
            "problem",
            f"{name}: {error}",
            "repair or replace the model; `featcache encoder inspect` shows it",
        )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


CHECKS: tuple[Check, ...] = (
    versions,
    runtime_package,
    name_clashes,
    providers,
    torch_cuda,
    processor,
    disk,
    timed_window,
)
"""Every check, in the order in which its findings are told."""
