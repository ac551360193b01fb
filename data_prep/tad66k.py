"""TAD66K (He et al. 2022) -> parquet: the beauty of 66,327 photographs on 47 themes, rated from 1 to 10.

    omniq data tad66k --root TAD66K --out data/tad66k

Needs `merge/train.csv`, `merge/test.csv` and the images below --root; --labels names the folder of `merge/`, if it is a
different one. The lists in `unmerge/` put 478 images on the other side of the split, so only the theme is taken from
them, if they are there. The label is mapped from 1-10 to the scale, like AVA's.
"""

from collections.abc import Iterator
from pathlib import Path

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_csv
from omniq_verl.preparation.readers import label_files, number

COLUMNS = ("image", "score")


def read(request: Request) -> Iterator[Item]:
    paths = label_files(request, "merge/train.csv", "merge/test.csv")
    themes = themes_below(paths[0].parent.parent / "unmerge")
    for path in paths:
        for row in read_csv(path, COLUMNS):
            score = number(row["score"])
            yield Item(
                row["image"],
                path.stem.lower(),
                score,
                details={"theme": themes[row["image"]]} if row["image"] in themes else {},
                fault=f"score is {row['score']!r}" if score is None else None,
            )


def themes_below(folder: Path) -> dict[str, str]:
    return {row["image"]: path.stem for path in sorted(folder.glob("*/*.csv")) for row in read_csv(path, COLUMNS)}


TAD66K = DataSet(
    name="tad66k",
    tasks={"aesthetic": LabelMap(1.0, 10.0, "least and greatest rating there is (ours: no paper gives its map)")},
    read=read,
    facts={
        "splits": "official: merge/train.csv 52,248, merge/test.csv 14,079",
        "licence": "labels under Apache-2.0 (the authors' repository); images from Flickr under their own terms",
    },
    expected_rows=lambda options: 52_248 + 14_079,
)

if __name__ == "__main__":
    main(TAD66K, __doc__)
