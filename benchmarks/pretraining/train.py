"""Pre-train the built-in encoder: `python -m benchmarks.pretraining.train --work DIR --minutes 60`.

The paper's recipe in small: nine generated sites, each annotating its own structures; the loss is masked to what
a crop's site annotates. Run again, it goes on from its checkpoint; `--steps` says where the schedule ends.
"""

from __future__ import annotations

import argparse
import json
import math
import queue
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from featcache.phantom import STRUCTURES, TRAINING_SITES

from . import augment, data
from .classes import CLASSES
from .network import FEATURES, WIDTHS, Encoder

_VALUES = torch.tensor([STRUCTURES[name] for name in CLASSES])


class Trainer(torch.nn.Module):
    """The encoder with heads that only the pre-training needs: coarser classifiers, picture and borders."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(len(CLASSES))
        self.at_half = torch.nn.Conv3d(WIDTHS[1], len(CLASSES), 1)
        self.at_quarter = torch.nn.Conv3d(WIDTHS[2], len(CLASSES), 1)
        self.picture = torch.nn.Conv3d(FEATURES, 2, 1)

    def groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate: Adam's steps are as small as the rate, and a head has far to go."""
        heads = [self.encoder.head, self.at_half, self.at_quarter, self.picture]
        fast = [value for head in heads for value in head.parameters()]
        slow = [value for value in self.parameters() if all(value is not other for other in fast)]
        return [{"params": slow, "factor": 1.0}, {"params": fast, "factor": 8.0}]

    def loss(self, crops: list[augment.Crop], alike: float) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch, and its parts."""
        images = torch.stack([crop.image for crop in crops])
        labels = _indices(torch.stack([crop.labels for crop in crops]))
        known = torch.stack([crop.annotated[_VALUES] for crop in crops])
        fine, half, quarter, logits = self.encoder(images)
        main = masked_loss(logits, labels, known, alike)
        coarse = masked_loss(self.at_half(half), labels[:, ::2, ::2, ::2], known, alike)
        coarser = masked_loss(self.at_quarter(quarter), labels[:, ::4, ::4, ::4], known, alike)
        picture = self.picture(fine).float()
        clean = functional.l1_loss(picture[:, :1], torch.stack([crop.clean for crop in crops]))
        borders = functional.binary_cross_entropy_with_logits(
            picture[:, 1:], torch.stack([crop.edges for crop in crops])
        )
        total = main + 0.5 * coarse + 0.3 * coarser + 0.5 * clean + 0.1 * borders
        parts = {"main": main, "half": coarse, "quarter": coarser, "picture": clean, "borders": borders}
        return total, {name: round(float(value.detach()), 4) for name, value in parts.items()}


def _indices(labels: Tensor) -> Tensor:
    """Class indices of label values; structures held out are background."""
    table = torch.zeros(len(STRUCTURES), dtype=torch.long)
    table[_VALUES] = torch.arange(len(CLASSES))
    return table[labels]


def masked_loss(logits: Tensor, labels: Tensor, known: Tensor, alike: float) -> Tensor:
    """Cross-entropy and soft Dice over the classes that each crop's site annotates.

    What a site does not annotate is one with the background: its probability counts there (marginal loss,
    Shi et al., Medical Image Analysis 2021).

    Parameters
    ----------
    logits
        (N, K, x, y, z); class 0 is background.
    labels
        (N, x, y, z), class indices.
    known
        (N, K), bool.
    alike
        Share of the cross-entropy in which every structure counts alike, whatever its size.
    """
    logits = logits.float()
    losses = []
    for scores, truth, annotated in zip(logits, labels, known, strict=True):
        chosen = annotated.nonzero()[:, 0]
        if not len(chosen):
            continue
        table = torch.zeros(len(annotated), dtype=torch.long)
        table[chosen] = torch.arange(1, len(chosen) + 1)
        target = table[truth]
        log_all = functional.log_softmax(scores, 0)
        rest = (~annotated).nonzero()[:, 0]
        log = torch.cat([log_all.index_select(0, rest).logsumexp(0)[None], log_all.index_select(0, chosen)])
        missing = -log.gather(0, target[None])[0]
        counts = target.flatten().bincount(minlength=len(log))
        present = counts.nonzero()[:, 0]
        # Small structures are a thousandth of the voxels and have a tiny probability at first, where Dice has no
        # slope: a share of the cross-entropy counts every structure alike. It falls to 0; else too much is found.
        sums = missing.new_zeros(len(log)).index_add(0, target.flatten(), missing.flatten())
        every = (sums[present] / counts[present]).mean()
        entropy = (1 - alike) * missing.mean() + alike * every
        present = present[present > 0]
        dice = scores.new_zeros(())
        if len(present):
            hot = (target[None] == present[:, None, None, None]).float()
            shown = log.index_select(0, present).exp()
            both = (hot * shown).flatten(1).sum(1)
            dice = (1 - (2 * both + 1) / (hot.flatten(1).sum(1) + shown.flatten(1).sum(1) + 1)).mean()
        losses.append(entropy + dice)
    return torch.stack(losses).sum() / len(labels) if losses else logits.sum() * 0


class Feeder:
    """Draws crops in the background; a step's batch depends on the seed and the step alone.

    The first steps see the first people of each site only, so that another process may still be generating the rest.
    """

    def __init__(self, paths: list[Path], steps: int, first: int) -> None:
        self._cases: dict[str, data.Case] = {}
        self._paths, self._steps = paths, steps
        self._queue: queue.Queue[list[augment.Crop]] = queue.Queue(3)
        threading.Thread(target=self._fill, args=(first,), daemon=True).start()

    def _fill(self, step: int) -> None:
        while True:
            random = np.random.default_rng([data.SEED, step])
            seen = min(len(self._paths), len(TRAINING_SITES) * (6 + step // 15))
            size, batch = (64, 2) if step < 0.88 * self._steps else (96, 1)
            chosen = [self._paths[i] for i in random.integers(0, seen, batch)]
            self._queue.put([augment.draw(self._case(path), size, random) for path in chosen])
            step += 1

    def _case(self, path: Path) -> data.Case:
        while not path.exists():
            time.sleep(1)
        if path.name not in self._cases:
            self._cases[path.name] = data.load(path)
        return self._cases[path.name]

    def __call__(self) -> list[augment.Crop]:
        return self._queue.get()


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: 100 steps of warm-up, then cosine."""
    return peak * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))) + 1e-6


def main() -> None:
    """Train until the schedule or the time ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--per-site", type=int, default=24)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--no-data", action="store_true", help="the cohort is being generated by another run")
    parser.add_argument("--compile", action="store_true", help="a third faster; needs a C++ compiler")
    parser.add_argument("--shipped", action="store_true", help="begin with the weights that ship")
    parser.add_argument("--begin", type=Path, help="begin with the weights of this checkpoint")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument(
        "--alike",
        type=float,
        default=0.5,
        help="share of cross-entropy that counts structures alike; falls to 0",
    )
    options = parser.parse_args()
    folder = options.work / "cases"
    paths = data.paths(folder, options.per_site)
    if not options.no_data:
        data.make(paths)
    torch.manual_seed(data.SEED)
    trainer = Trainer().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if options.shipped:
        from .export import shipped

        trainer.encoder.load_state_dict(shipped().state_dict())
    if options.begin:
        trainer.load_state_dict(torch.load(options.begin, weights_only=True)["average"])
    optimiser = torch.optim.AdamW(trainer.groups(), weight_decay=1e-4)
    average = {name: value.detach().clone() for name, value in trainer.state_dict().items()}
    if options.compile:
        trainer.encoder.compile(dynamic=False)
    checkpoint = options.work / "checkpoint.pt"
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        trainer.load_state_dict(state["trainer"])
        state["optimiser"]["param_groups"] = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict(state["optimiser"])
        average, step, spent = state["average"], state["step"], state["spent"]
    feed = Feeder(paths, options.steps, step)
    begun = time.monotonic()
    with (options.work / "log.jsonl").open("a") as log:
        while step < options.steps and time.monotonic() - begun < options.minutes * 60:
            for group in optimiser.param_groups:
                group["lr"] = rate(step, options.steps, options.peak) * group["factor"]
            with torch.autocast("cpu", torch.bfloat16):
                loss, parts = trainer.loss(feed(), options.alike * (1 - step / options.steps))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainer.parameters(), 5.0)
            optimiser.step()
            keep = min(0.995, (1 + step) / (10 + step))
            with torch.no_grad():
                for name, value in trainer.state_dict().items():
                    average[name].lerp_(value, 1 - keep)
            step += 1
            now = spent + time.monotonic() - begun
            log.write(
                json.dumps(
                    {"step": step, "seconds": round(now, 1), "loss": round(float(loss.detach()), 4), **parts}
                )
                + "\n"
            )
            log.flush()
            if step % 100 == 0:
                _save(checkpoint, trainer, optimiser, average, step, now)
    _save(checkpoint, trainer, optimiser, average, step, spent + time.monotonic() - begun)


def _save(
    path: Path,
    trainer: Trainer,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
    spent: float,
) -> None:
    part = path.with_suffix(".part")
    state = {
        "trainer": trainer.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average,
        "step": step,
        "spent": spent,
    }
    torch.save(state, part)
    part.replace(path)


if __name__ == "__main__":
    main()
