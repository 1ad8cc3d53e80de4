"""Time that a fit may take -> a number of steps, measured once and recorded."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace

from adapters.model import Adapter
from adapters.recipe import Recipe
from adapters.training import Batches, train

_WARM, _TIMED = 2, 5
_FEWEST = 20  # steps: fewer teach nothing


@dataclass(frozen=True)
class Budget:
    """Seconds for a fit, and when it began.

    Parameters
    ----------
    seconds : float
    begun : float
        On the clock of `time.perf_counter`.
    """

    seconds: float
    begun: float

    def fit_in(self, recipe: Recipe, adapter: Adapter, batches: Batches, device: str) -> Recipe:
        """Return the recipe with as many of its steps as the time that is left has room for, at least 20.

        A copy of the adapter is trained for a few steps; the batches are drawn anew after that.
        """
        ends: list[float] = []
        state = batches.random.bit_generator.state
        few = replace(recipe, steps=_WARM + _TIMED, plateau=False)
        train(
            copy.deepcopy(adapter),
            batches,
            few,
            device=device,
            on_step=lambda *_: ends.append(time.perf_counter()),
        )
        batches.random.bit_generator.state = state
        each = (ends[-1] - ends[_WARM - 1]) / _TIMED
        left = self.seconds - (ends[-1] - self.begun)
        return self.of_steps(recipe, max(int(left / each), _FEWEST))

    def of_steps(self, recipe: Recipe, steps: int) -> Recipe:
        """Return the recipe of `steps` steps, or its own where those are fewer."""
        steps = min(steps, recipe.steps)
        warm_up = min(recipe.warm_up, max(steps // 10, 1))
        return replace(recipe, steps=steps, warm_up=warm_up, budget=self.seconds)
