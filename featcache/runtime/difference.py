"""What computing in fewer bits changes: two encoders on some windows of one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from featcache.encode import Encoder, cut
from featcache.prepare import PreparedVolume
from featcache.windows import plan_windows

_WINDOWS = 3


@dataclass(frozen=True)
class Difference:
    """Relative root mean square difference of each output.

    Parameters
    ----------
    relative_rms : mapping of str to float
        Root mean square of the difference over that of the reference's deviation from its mean.
    windows : int
        On how many windows.
    """

    relative_rms: Mapping[str, float]
    windows: int

    @classmethod
    def of(cls, volume: PreparedVolume, encoder: Encoder, reference: Encoder) -> Difference:
        """Return how `encoder` differs from `reference` on up to three windows spread over `volume`."""
        card = encoder.card
        plan = plan_windows(volume.grid.shape, card)
        windows = [window for layer in plan.layers(2) for window in layer]
        chosen = sorted({round(i) for i in np.linspace(0, len(windows) - 1, _WINDOWS + 2)[1:-1]})
        errors: dict[str, list[float]] = {}
        spreads: dict[str, list[float]] = {}
        for index in chosen:
            voxels = cut(volume.voxels, windows[index].start, plan.size, card.preparation.pad_value)
            expected = reference(voxels)
            for name, found in encoder(voxels).items():
                errors.setdefault(name, []).append(float(np.square(found - expected[name]).mean()))
                spreads.setdefault(name, []).append(float(expected[name].var()))
        rms = {name: (sum(e) / max(sum(spreads[name]), 1e-30)) ** 0.5 for name, e in errors.items()}
        return cls(rms, len(chosen))

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value:.2g}" for name, value in self.relative_rms.items())
        return f"on {self.windows} windows: relative RMS difference {parts}"
