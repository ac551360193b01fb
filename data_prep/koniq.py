"""KonIQ-10k (Hosu et al. 2020) -> parquet: technical quality of 10,073 photographs.

    omniq data koniq --root koniq10k --out data/koniq

Needs `koniq10k_distributions_sets.csv` (it has the official split) or else pyiqa's `meta_info_KonIQ10kDataset.csv`, and
the images, in `1024x768/` or `512x384/`, below --root. The label is the raw MOS (ratings 1-5) by default; --mos zscore
takes the z-scored one (0-100), as VisualQuality-R1 does. Both are mapped from the lowest and highest label of the whole
file, as DeQA-Score does; --deqa leaves out the 17 images that are missing in its (and so in Q-Insight's and RALI's)
lists, and --deqa-meta takes these lists themselves (train_koniq_7k.json, test_koniq_2k.json).
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from omniq_verl.data.digits import Rounded
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.deqa_labels import add_deqa_option, count_of, map_of, read_deqa
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import LabelFileError, read_csv
from omniq_verl.preparation.pyiqa_labels import is_pyiqa, read_pyiqa
from omniq_verl.preparation.readers import labelled, number, shares_of

LABEL_FILES = (
    *("koniq10k_distributions_sets.csv", "meta_info_KonIQ10kDataset.csv"),
    "koniq10k_scores_and_distributions.csv",  # cannot be used; an error explains why
)
SHARES = ("c1", "c2", "c3", "c4", "c5")
SPLITS = {
    **{"training": "train", "validation": "val", "test": "test"},  # in the owners' file
    **{"train": "train", "val": "val", "0": "train", "1": "val", "2": "test"},  # in newer and older versions of pyiqa
}
EXACT = 1e-9
"""Labels closer than this are equal: the owners' file has shares with twelve digits."""
MAPS = {
    "raw": LabelMap(1.09615384615385, 4.31, "least and greatest raw MOS of all 10,073 images (DeQA-Score's rule)"),
    "zscore": LabelMap(3.91176470588, 88.3888888889, "least and greatest z-scored MOS of all 10,073 images"),
}
NOT_IN_DEQA = frozenset(
    (
        *("10344921126", "19502065", "28311109", "33000255", "361037189", "5168834860", "5466371904", "5869585652"),
        *("5952914370", "6285698915", "7574416384", "80184044"),  # up to here training set, then test set
        *("121123359", "213906996", "3483143101", "3632417985", "44009500"),
    )
)


def read(request: Request) -> Iterator[Item]:
    options = request.options
    if options.deqa_meta:
        yield from read_deqa(options.deqa_meta)
        return
    for row in read_rows(request.label_file(*LABEL_FILES), options.mos):
        if options.deqa and row["image_name"].removesuffix(".jpg") in NOT_IN_DEQA:
            continue
        # The file's column MOS is the z-scored one; the raw MOS is the mean of the shares of the ratings 1 to 5.
        score = raw_mos(row) if options.mos == "raw" else row["MOS"]
        item = labelled(row["image_name"], score, SPLITS.get(row["set"], ""), standard_deviation=number(row["SD"]))
        if score is None:
            item = replace(
                item, fault=f"its shares {', '.join(row[share] for share in SHARES)} are not numbers that add up to 1"
            )
        yield item if item.split else Item(item.name, "", fault=f"its set {row['set']!r} is none of the three")


def read_rows(path: Path, mos: str) -> Iterator[dict[str, str]]:
    """Yield the rows of either file, with the owners' column names."""
    header = next(read_csv(path, []), {})
    if "MOS_zscore" in header:
        raise LabelFileError(f"{path}: it has no split. Fix: add {LABEL_FILES[0]} from github.com/subpic/koniq")
    if not is_pyiqa(path):
        yield from read_csv(path, ["image_name", *SHARES, "MOS", "SD", "set"])
        return
    if mos == "raw" and not header.keys() >= set(SHARES):
        raise LabelFileError(f"{path}: it has only the z-scored MOS. Fix: --mos zscore, or add {LABEL_FILES[0]}")
    for name, score, row in read_pyiqa(path):
        side = row.get("official_split", row.get("split", ""))
        yield {**row, "image_name": name, "MOS": score, "SD": row.get("std", ""), "set": side}


def raw_mos(row: dict[str, str]) -> Rounded | None:
    """Return the mean rating from rounded shares: exact if the number of votes is known, else as precise as the shares.

    The result is None if they are not shares of a whole.
    """
    shares = shares_of([row[share] for share in SHARES])
    if shares is None:
        return None
    votes = votes_of(shares, number(row.get("c_total"))) or shares
    given, exact = (sum(rating * part for rating, part in enumerate(parts, 1)) for parts in (shares, votes))
    exact /= sum(votes)
    # An error in a share moves the mean by the error times the distance of the share's rating from the mean, at most 4.
    rounding = 4 * sum(share.rounding for share in shares) / sum(shares)
    return Rounded(given if abs(given - exact) < EXACT else exact, rounding)


def votes_of(shares: Sequence[Rounded], total: float | None) -> list[int] | None:
    """Return the number of votes for each rating if whole numbers reproduce these shares, otherwise None."""
    votes = [round(share * (total or 0)) for share in shares]
    close = (
        abs(count - share * total) <= share.rounding * total + 1e-6 for count, share in zip(votes, shares, strict=True)
    )
    return votes if total and sum(votes) == total and all(close) else None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mos", choices=list(MAPS), default="raw", help="which of its two labels (default: raw)")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--deqa", action="store_true", help="leave out the 17 images DeQA-Score's lists lack")
    add_deqa_option(either)


KONIQ = DataSet(
    name="koniq",
    tasks={"technical": MAPS["raw"]},
    read=read,
    folders=("1024x768", "512x384", "KONIQ"),
    facts={
        "splits": "column `set` of koniq10k_distributions_sets.csv: 7,058 / 1,000 / 2,015",
        "labels": "c1-c5 or MOS of that file; `standard_deviation` is its SD, of the ratings (1-5) in both cases",
        "licence": "images from YFCC100M under their own Creative Commons licences",
    },
    add_options=add_options,
    label_map=lambda options: map_of(MAPS[options.mos])(options),
    own_options=("mos", "deqa", "deqa_meta"),
    expected_rows=lambda options: count_of(10_056 if options.deqa else 10_073)(options),
)

if __name__ == "__main__":
    main(KONIQ, __doc__)
