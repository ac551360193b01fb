"""A third "data set" that no run trains on: held-out photographs under distortions not seen before.

    python -m omniq_verl.pipeline.made.ract_outside --data runs/ract/data --out runs/ract/outside

It reads the clean crops in test.parquet of `data_prep/photo_distortions.py` and writes test_gamma.parquet: each crop
three times, distorted by operators of `data_prep/degradations.py` that alpha and beta do not use. The labels are based
on SSIM: a crop's label is the share of gamma's crops with a lower SSIM, on a scale from 1 to 5.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from scipy.stats import rankdata
from skimage.metrics import structural_similarity

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.pipeline.made.options import crops_arguments
from omniq_verl.preparation.distortions import LEVELS, degrade
from omniq_verl.tasks import Q_INSIGHT_SCORE

OPERATORS = ("noise_impulse", "noise_correlated", "noise_poisson", "darken_gamma", "darken_value")
VERSIONS = 3
"""Versions of each clean crop."""


def clean_crops(data: Path) -> list[tuple[str, np.ndarray]]:
    """Names and pixels ``[H, W, 3]`` of the clean crops."""
    records = pq.read_table(data / "test.parquet").to_pylist()
    return [
        (record["extra_info"]["id"].rsplit("/", 1)[1], np.asarray(Image.open(io.BytesIO(record["images"][0]["bytes"]))))
        for record in records
        if json.loads(record["extra_info"]["details"])["distortion"] == "null"
    ]


def distorted(name: str, clean: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """All versions of a crop: id, operator, level, SSIM and PNG."""
    found = []
    for version in range(VERSIONS):
        rng = np.random.default_rng([seed, version, *name.encode()])
        operator, level = OPERATORS[rng.integers(len(OPERATORS))], int(rng.choice(LEVELS))
        pixels, _ = degrade(clean, operator, level, rng)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        details = {"operator": operator, "level": level}
        ssim = structural_similarity(clean, pixels, channel_axis=2, gaussian_weights=True, data_range=255)
        found.append({"id": f"{name}_{version}", "details": details, "ssim": ssim, "png": buffer.getvalue()})
    return found


def main() -> None:
    args = crops_arguments(__doc__)
    crops = [crop for name, clean in clean_crops(args.data) for crop in distorted(name, clean, args.seed)]
    labels = 1 + 4 * (rankdata([crop["ssim"] for crop in crops]) - 1) / (len(crops) - 1)
    rows = (
        Row(
            "gamma",
            f"gamma/test/{crop['id']}",
            Q_INSIGHT_SCORE.name,
            "test",
            label,
            label,
            (1.0, 5.0),
            details=crop["details"],
        ).record(number, crop["png"])
        for number, (crop, label) in enumerate(zip(crops, labels.tolist(), strict=True))
    )
    write_parquet(rows, args.out / "test_gamma.parquet")


if __name__ == "__main__":
    main()
