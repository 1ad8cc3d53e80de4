"""Which integers? Rules for range and offset, and ways of packing, on boxes of real features.

    python benchmarks/extraction/range_rules.py --store /tmp/rate_distortion/float16.zarr

The store's first case calibrates, boxes of five others are stored: bits a value after packing, relative rms error in
σ, clipped share, and the share of the voxels that either side gives a structure on which the encoder's own head decides
alike. `common` is the rule of `featcache.calibrate`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import write_result

from featcache import FeatureStore
from featcache.calibrate import calibrate
from featcache.head import LinearHead
from featcache.quantise import Calibration, dequantise, quantise

BOX = (32, 32, 32)
BITS = (6, 5, 4)


def main() -> None:
    """Quantise the boxes by every rule, pack them in every way, print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="float16, of an encoder with a head")
    store = FeatureStore.open(parser.parse_args().store)
    assert store.root.head is not None
    head = LinearHead.from_json(store.root.head)
    cases = store.cases()
    first = store.case(cases[0]).level(head.level)
    whole = first.read((0, 0, 0), first.grid.shape)
    boxes = [box for case in cases[1 :: len(cases) // 5][:5] for box in middle(store, case, head.level)]
    rules = [
        {"rule": name, "bits": bits, **measure(boxes, calibration, head)}
        for bits in BITS
        for name, calibration in calibrations(whole, bits)
    ]
    kept = [calibrate("first", [("l", whole)], bits).levels["l"] for bits in BITS]
    packings = [
        {"packing": name, "bits": c.bits, "rate": round(rate(quantised(boxes, c), pack), 2)}
        for c in kept
        for name, pack in PACKINGS.items()
    ]
    for row in (*rules, *packings):
        print("| " + " | ".join(map(str, row.values())) + " |")
    print(write_result("range_rules", {"rules": rules, "packings": packings}))


def middle(store: FeatureStore, case: str, level: str) -> Iterator[NDArray[np.float32]]:
    """Yield two boxes of whole chunks from the middle of a case, one after the other along z."""
    found = store.case(case).level(level)
    x, y, z = (max(n // 2 - 16, 0) for n in found.grid.shape)
    for start in (max(z - 16, 0), z + 16):
        if start + BOX[2] <= found.grid.shape[2]:
            yield found.read((x, y, start), BOX)


def calibrations(whole: NDArray[np.float32], bits: int) -> Iterator[tuple[str, Calibration]]:
    """Yield the rules' calibrations."""
    n, flat = 2**bits - 1, whole.reshape(len(whole), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    mean, sigma = flat.mean(axis=1), flat.std(axis=1)
    yield "common, room .375 (ours)", calibrate("first", [("l", whole)], bits).levels["l"]
    for room in (0.0, 0.125, 0.375):
        step = (1 + 2 * room) * (high - low) / n
        yield (
            f"minimum, room {room:g}",
            Calibration(bits, step, low - round(n * room / (1 + 2 * room)) * step),
        )
    tail = np.quantile(flat[:, ::3], [1e-4, 1 - 1e-4], axis=1).astype(np.float32)
    yield "quantiles 1e-4", Calibration(bits, (tail[1] - tail[0]) / np.float32(n), tail[0])
    for k in (3, 5, 8):
        yield f"mean ± {k} σ", Calibration(bits, np.float32(2 * k / n) * sigma, mean - k * sigma)


def quantised(boxes: list[NDArray[np.float32]], calibration: Calibration) -> list[NDArray[np.uint8]]:
    """Return the boxes as integers."""
    return [quantise(box, calibration)[0] for box in boxes]


def measure(boxes: list[NDArray[np.float32]], calibration: Calibration, head: LinearHead) -> dict[str, Any]:
    """Return rate, error, clipped share and agreement of the head."""
    numbers = quantised(boxes, calibration)
    clipped = sum(quantise(box, calibration)[1] for box in boxes)
    computed = np.concatenate([box.reshape(len(box), -1) for box in boxes], axis=1)
    stored = np.concatenate([dequantise(q, calibration).reshape(len(q), -1) for q in numbers], axis=1)
    deviation = computed - computed.mean(axis=1, keepdims=True)
    one, other = head.decide(computed), head.decide(stored)
    structure = (one > 0) | (other > 0)
    return {
        "rate": round(rate(numbers, Zstd(6).encode), 2),
        "relative_sigma": round(
            float(np.sqrt(np.square(stored - computed).mean() / np.square(deviation).mean())), 4
        ),
        "clipped_share": round(clipped / computed.size, 6),
        "head_agreement": round(float((one == other)[structure].mean()), 4),
    }


def rate(numbers: list[NDArray[np.uint8]], pack: Callable[[NDArray[np.uint8]], bytes]) -> float:
    """Return bits a value."""
    return 8 * sum(len(pack(q)) for q in numbers) / sum(q.size for q in numbers)


def bit_planes(numbers: NDArray[np.uint8]) -> bytes:
    """Return 8 planes of one bit each, zstd."""
    return bytes(Zstd(6).encode(np.packbits(np.unpackbits(numbers.ravel()[:, None], axis=1).T)))


def differences(numbers: NDArray[np.uint8]) -> bytes:
    """Return differences along z, zstd."""
    return bytes(Zstd(6).encode(np.diff(numbers, axis=3, prepend=np.uint8(0))))


PACKINGS: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
    "zstd 6 (ours)": Zstd(6).encode,
    "zstd 1": Zstd(1).encode,
    "zstd 19": Zstd(19).encode,
    "blosc zstd 1, bitshuffle (as float16)": Blosc("zstd", 1, Blosc.BITSHUFFLE).encode,
    "bit planes, zstd 6": bit_planes,
    "differences along z, zstd 6": differences,
}


if __name__ == "__main__":
    main()
