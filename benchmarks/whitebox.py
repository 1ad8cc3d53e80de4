"""White-box references: the built-in encoder fine-tuned with its weights and the images, as the paper compares.

Development only: with an ONNX file alone nobody can do this. Full fine-tuning, the decoder alone, LoRA in the encoder
(the `peft` library) with the decoder, and training from scratch; the result is exported with a card of its own.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from pretraining import data
from pretraining.classes import CLASSES
from pretraining.export import card, export, shipped
from pretraining.network import FEATURES, Encoder

from adapters.losses import cross_entropy_loss, soft_dice_loss
from featcache.encoder_tools import attach
from featcache.phantom import PhantomScan

STEPS, SIZE, BATCH = 100, 64, 2
RATES = {"full": 3e-4, "decoder": 3e-4, "lora_decoder": 3e-4, "scratch": 1.5e-3}
HEAD_FACTOR = 8.0


def fit(
    folder: Path, method: str, support: list[str], names: list[str], seed: int, out: Path
) -> tuple[Path, int, float, list[float]]:
    """Fine-tune on support cases of a cohort's folder; the exported model, its trained parameters, seconds, losses."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    cases = [_case(folder, name, names) for name in support]
    encoder = Encoder(len(names) + 1) if method == "scratch" else _with_head(shipped(), names)
    network: torch.nn.Module = encoder
    if method == "decoder":
        for part in (encoder.stem, encoder.down):
            part.requires_grad_(False)
    if method == "lora_decoder":
        network = _lora(encoder)
    trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    rate = RATES[method]
    groups = [
        {"params": [p for n, p in trained if "head" not in n], "lr": rate},
        {"params": [p for n, p in trained if "head" in n], "lr": rate * HEAD_FACTOR},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    network.compile(dynamic=False)  # needs a C++ compiler; a third faster
    curve: list[float] = []
    begun = time.perf_counter()
    network.train()
    for _ in range(STEPS):
        images, targets = _batch(cases, len(names) + 1, random)
        with torch.autocast("cpu", torch.bfloat16):
            *_, logits = network(images)
        shares = logits.float().softmax(1)
        every = torch.ones(shares.shape[:2], dtype=torch.bool)
        weight = torch.ones_like(shares[:, :1])
        dice = soft_dice_loss(shares, targets, weight, every[:, 1:], per_item=False)
        entropy = cross_entropy_loss(shares, targets, weight)
        optimiser.zero_grad()
        loss = dice + entropy
        loss.backward()
        curve.append(round(float(loss.detach()), 5))
        optimiser.step()
        schedule.step()
    seconds = time.perf_counter() - begun
    if method == "lora_decoder":
        encoder = network.merge_and_unload()  # type: ignore[operator]
    encoder.eval()
    export(encoder, out)
    attach(
        out, dataclasses.replace(card("builtin", encoder, ("background", *names)), name=f"builtin-{method}")
    )
    return out, sum(p.numel() for _, p in trained), round(seconds, 1), curve


def _with_head(encoder: Encoder, names: list[str]) -> Encoder:
    """The encoder with rows for these classes: its own where it knows them, else new ones."""
    head = torch.nn.Conv3d(FEATURES, len(names) + 1, 1)
    with torch.no_grad():
        for row, name in enumerate(("background", *names)):
            if name in CLASSES:
                head.weight[row] = encoder.head.weight[CLASSES.index(name)]
                head.bias[row] = encoder.head.bias[CLASSES.index(name)]  # type: ignore[index]
    encoder.head = head
    return encoder


def _lora(encoder: Encoder) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model

    inside = [
        n
        for n, m in encoder.named_modules()
        if isinstance(m, torch.nn.Conv3d) and n.startswith(("stem", "down"))
    ]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=inside, modules_to_save=None)
    network = get_peft_model(encoder, config)  # type: ignore[arg-type]
    for name, value in network.named_parameters():
        if any(part in name for part in (".up.", ".shortcut", ".head")):
            value.requires_grad_(True)
    return network


def _case(folder: Path, name: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Prepared image in HU and class indices."""
    scan = nib.load(folder / "scans" / f"{name}.nii.gz")
    values = np.asarray(nib.load(folder / "labels" / f"{name}.nii.gz").dataobj)
    known = json.loads((folder / "labels" / "labels.json").read_text("utf-8"))
    table = np.zeros(256, np.uint8)
    table[[known[n] for n in names]] = np.arange(1, len(names) + 1)
    labels = table[values]
    made = PhantomScan(np.asarray(scan.dataobj), labels, labels, np.asarray(scan.affine))
    case = data.prepared(made, ())
    return case.image, case.labels


def _batch(
    cases: list[tuple[np.ndarray, np.ndarray]], classes: int, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops, half of them around a structure; intensity shift as in the paper (0.10 with p = 0.20)."""
    images, targets = [], []
    for index in range(BATCH):
        image, labels = cases[int(random.integers(len(cases)))]
        pad = [(0, max(0, SIZE - n)) for n in image.shape]
        image, labels = np.pad(image, pad, constant_values=-1000), np.pad(labels, pad)
        centre = [int(random.integers(n)) for n in image.shape]
        inside = np.flatnonzero(labels)
        if index % 2 == 0 and len(inside):
            centre = list(np.unravel_index(int(random.choice(inside)), labels.shape))
        start = [int(np.clip(c - SIZE // 2, 0, n - SIZE)) for c, n in zip(centre, image.shape, strict=True)]
        box = tuple(slice(s, s + SIZE) for s in start)
        low, high = data.WINDOW
        picture = (image[box].astype(np.float32) - low) / (high - low)
        if random.random() < 0.2:
            picture = picture + random.uniform(-0.01, 0.01)
        images.append(np.clip(picture, 0, 1)[None])
        targets.append(np.moveaxis(np.eye(classes, dtype=np.float32)[labels[box]], -1, 0))
    return torch.from_numpy(np.stack(images).astype(np.float32)), torch.from_numpy(np.stack(targets))
