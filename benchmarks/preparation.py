"""Speed of turning images into parquet, compared with a plain copy of the same files with the same parallelism.

    python benchmarks/preparation.py [--images 2000] [--workers 2] [--rounds 3] [--folder /tmp]

Needs disk space for twice the images: 500 KB each.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from scipy.ndimage import gaussian_filter

from omniq_verl.preparation.build import BuildOptions, Item, Source, prepare
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_csv

DISTINCT = 16
SHARD_ROWS = 256
SPAWN = multiprocessing.get_context("spawn")


def make_images(root: Path, count: int) -> int:
    """Create JPEG files of about 500 KB (hard links to a few distinct ones) and a label file; returns their bytes."""
    (root / "1024x768").mkdir(parents=True)
    for number in range(min(count, DISTINCT)):
        rng = np.random.default_rng(number)
        noise = gaussian_filter(rng.normal(128, 120, (768, 1024, 3)), (0.7, 0.7, 0))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / "1024x768" / f"{number:06d}.jpg", quality=88)
    for number in range(DISTINCT, count):
        os.link(root / "1024x768" / f"{number % DISTINCT:06d}.jpg", root / "1024x768" / f"{number:06d}.jpg")
    names = sorted(path.name for path in root.rglob("*.jpg"))
    lines = [f"{name},{1 + number % 5}" for number, name in enumerate(names)]
    (root / "labels.csv").write_text("\n".join(["image_name,MOS", *lines]) + "\n")
    return sum(path.stat().st_size for path in root.rglob("*.jpg"))


def items(root: Path) -> Iterator[Item]:
    return (Item(row["image_name"], "train", float(row["MOS"])) for row in read_csv(root / "labels.csv", ["MOS"]))


def prepare_all(root: Path, out: Path, workers: int) -> None:
    labels = LabelMap(1.0, 5.0, "ratings from 1 to 5")
    source = Source("made", "technical", items(root), labels, folders=("1024x768",))
    card = prepare(source, FileIndex(root), out, BuildOptions(workers, SHARD_ROWS), Console(quiet=True))
    assert not card["rejects"]["all"]


def copy_some(paths: list[Path], out: Path) -> None:
    for path in paths:
        (out / path.name).write_bytes(path.read_bytes())


def copy_all(root: Path, out: Path, workers: int) -> None:
    paths = sorted(root.rglob("*.jpg"))
    out.mkdir()
    with ProcessPoolExecutor(workers, mp_context=SPAWN) as pool:
        parts = [paths[first : first + SHARD_ROWS] for first in range(0, len(paths), SHARD_ROWS)]
        list(pool.map(copy_some, parts, [out] * len(parts)))


def _measured(work: Callable[..., None], arguments: tuple[Any, ...], answer: Any) -> None:
    from matplotlib.figure import Figure  # noqa: F401  import it before timing, as it takes a second

    started = time.perf_counter()
    work(*arguments)
    seconds = time.perf_counter() - started
    used = [resource.getrusage(whom) for whom in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    busy = sum(usage.ru_utime + usage.ru_stime for usage in used)
    answer.put((seconds, busy, max(usage.ru_maxrss for usage in used) / 1024))


def measure(work: Callable[..., None], root: Path, out: Path, workers: int) -> tuple[float, float, float]:
    """Wall time, CPU time in seconds, and peak memory in MiB of the largest process, for a run in a fresh process."""
    os.sync()  # flush pending writes of the last run
    answer = SPAWN.Queue()
    process = SPAWN.Process(target=_measured, args=(work, (root, out, workers), answer))
    process.start()
    found = answer.get()
    process.join()
    shutil.rmtree(out)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root, out = Path(folder) / "root", Path(folder) / "out"
        size = make_images(root, args.images)
        print(f"{args.images} JPEG files of {size / args.images / 1000:.0f} KB, {args.workers} processes;", end=" ")
        print(f"load before the run: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        rates: dict[str, list[float]] = {"copy": [], "prepare": []}
        for number in range(args.rounds):
            for name, work in (("copy", copy_all), ("prepare", prepare_all)):
                seconds, busy, peak = measure(work, root, out, args.workers)
                rates[name].append(args.images / seconds)
                text = f"{args.images / seconds:6.0f} images/s, processors {busy / args.images * 1e3:.2f} ms per image"
                print(f"  round {number + 1}: {name:7} {text}, peak {peak:.0f} MiB", flush=True)
    copied, prepared = (statistics.median(found) for found in rates.values())
    print(f"prepare {prepared:.0f} images/s = {prepared / copied:.2f} of the copy's {copied:.0f} (medians)")


if __name__ == "__main__":
    main()
