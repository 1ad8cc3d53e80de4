"""The README's Python example is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.filterwarnings("default")  # a reader's own session does not turn warnings into errors
def test_python_example_runs(
    tmp_path: Path, fakes: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    fakes.conv_encoder(Path("fm.onnx"))
    random = np.random.default_rng(0)
    for folder in ("scans", "labels"):
        Path(folder).mkdir()
    for number in range(3):
        inside = np.zeros((14, 15, 16), np.uint8)
        inside[3:9, 4 + number : 11, 5:12] = 1
        voxels = (inside + random.normal(0, 0.1, inside.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), f"scans/case_{number}.nii.gz")
        if number < 2:
            nib.save(nib.Nifti1Image(inside, np.eye(4)), f"labels/case_{number}.nii.gz")
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert "case_2 l1 4 (14, 15, 16)" in printed
    assert printed.splitlines()[-1].endswith("{'1': 1}")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
