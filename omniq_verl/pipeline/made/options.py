"""Options of the scripts that make data out of the quickstart's photographs."""

import argparse
from pathlib import Path


def crops_arguments(doc: str | None) -> argparse.Namespace:
    """``data``, ``out`` (the folder is made) and ``seed``; ``doc`` describes the script."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data_prep/photo_distortions.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is drawn (default: 0)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return args
