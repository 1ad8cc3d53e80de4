"""The state of a training on the disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import io
import json
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featcache.store.files import replace_synced, write_errors


@dataclass
class Progress:
    """A file that holds the last state of one training.

    What it holds is used only by a training with the same key, and goes when the training is over. A file that
    cannot be read counts as none: the training begins anew.

    Parameters
    ----------
    path : Path
    key : str
        Digest of everything that the training's outcome depends on.
    every : float
        Seconds between two writes.
    """

    path: Path
    key: str
    every: float = 20.0

    def __post_init__(self) -> None:
        self._last = time.monotonic()

    def load(
        self, adapter: torch.nn.Module, optimiser: torch.optim.Optimizer, random: np.random.Generator
    ) -> list[float]:
        """Set all three to where the training was, and return the loss of the steps that it has behind it."""
        state = self._read()
        if state is None:
            return []
        adapter.load_state_dict(state["adapter"])
        optimiser.load_state_dict(state["optimiser"])
        random.bit_generator.state = json.loads(state["random"])
        return list(state["curve"])

    def steps(self) -> int | None:
        """Return how many steps the training was to have, None if there is none to go on with."""
        state = self._read()
        return None if state is None else int(state["steps"])

    def _read(self) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            if state["key"] != self.key:
                return None
            state["curve"] = [float(loss) for loss in state["curve"]]
            state["steps"] = int(state["steps"])
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError):
            return None
        return state

    def save(
        self,
        adapter: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        random: np.random.Generator,
        curve: list[float],
        steps: int,
    ) -> None:
        """Write the state after some of `steps` steps, if the last write is long enough ago.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        if time.monotonic() - self._last < self.every:
            return
        data = io.BytesIO()
        state = {
            "key": self.key,
            "curve": curve,
            "steps": steps,
            "adapter": adapter.state_dict(),
            "optimiser": optimiser.state_dict(),
            "random": json.dumps(random.bit_generator.state),
        }
        torch.save(state, data)
        replace_synced(self.path, data.getvalue(), self.path.with_name(f"{self.path.name}.part"))
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove the file."""
        with write_errors(self.path):
            self.path.unlink(missing_ok=True)
            self.path.with_name(f"{self.path.name}.part").unlink(missing_ok=True)
