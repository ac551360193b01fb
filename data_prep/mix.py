"""Prepared data sets -> one joint training set.

    omniq data mix --root data --preset omniquality_r --out data/omniquality_r
    omniq data mix --root data --take ava=10000 evalmuse=10000 koniq=7000 --seed 0 --out data/joint

Needs prepared data sets in folders below --root; they are named after their folders. The given number of training rows
of each is drawn with --seed without repetition, and all are shuffled. Validation and test files are not copied. The
disk needs twice the space of the mix.
"""

import argparse
import sys

from rich.console import Console

from omniq_verl.preparation.cli import override, positive
from omniq_verl.preparation.file_index import given_path
from omniq_verl.preparation.mix import PRESETS, MixError, mix, plan_mix, validation_files


def main(arguments: list[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    wanted = PRESETS[args.preset] if args.preset else dict(args.take)
    if args.take and len(wanted) < len(args.take):
        sys.exit("--take names a data set twice")
    try:
        plan = plan_mix(args.root, wanted, args.seed, args.all_if_fewer)
        card = mix(plan, args.out, args.seed, args.shard_rows, Console(stderr=True))
    except MixError as error:
        sys.exit(str(error))
    print(override("data.train_files", [args.out / name for name in card["files"]]))
    if val := validation_files(plan):
        print(override("data.val_files", val))
    parts = ", ".join(f"{name} {part['rows']} of {part['of']}" for name, part in card["parts"].items())
    print(f"{card['rows']} rows: {parts}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--root", type=given_path, required=True, help="folder with the prepared data sets")
    add("--out", type=given_path, required=True, help="folder for the parquet files")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--take", nargs="+", type=amount, metavar="NAME=ROWS", help="number of rows to take from each data set"
    )
    presets = "; ".join(
        f"{name}: {' + '.join(f'{n} {part}' for part, n in of.items())}" for name, of in PRESETS.items()
    )
    which.add_argument("--preset", choices=list(PRESETS), help=presets)
    add("--seed", type=int, default=0, help="seed of the draw and the order (default: 0)")
    add("--all-if-fewer", action="store_true", help="take all rows of a data set that has fewer")
    add("--shard-rows", type=positive, default=4096, help="rows per file (default: 4096)")
    return parser


def amount(text: str) -> tuple[str, int]:
    name, _, rows = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form koniq=7000")
    return name, positive(rows)


if __name__ == "__main__":
    main()
