"""AGIQA-3K (Li et al. 2023) -> parquet: 2,982 generated images, technical quality or match to their prompts.

    omniq data agiqa3k --root AGIQA-3K --out data/agiqa3k
    omniq data agiqa3k --root AGIQA-3K --out data/agiqa3k_alignment --task alignment

Needs `data.csv` and the images, in any folder, below --root. `mos_quality` is the label of the technical task,
`mos_align` that of the alignment task; both are nominally 0-5; the lowest and highest label of the file are mapped to
the ends of the scale.
"""

from collections.abc import Iterator

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import DataSet, Request, main
from omniq_verl.preparation.label_map import LabelMap
from omniq_verl.preparation.label_tables import read_csv
from omniq_verl.preparation.readers import number

COLUMNS = {"technical": "quality", "alignment": "align"}
WORDS = ("adj1", "adj2", "style")


def read(request: Request) -> Iterator[Item]:
    mos, spread = (f"{kind}_{COLUMNS[request.task]}" for kind in ("mos", "std"))
    path = request.label_file("data.csv")
    for row in read_csv(path, ["name", "prompt", *WORDS, mos, spread]):
        score = number(row[mos])
        yield Item(
            row["name"],
            "test",
            score,
            text=row["prompt"],
            details={**{word: row[word] for word in WORDS if row[word]}, "standard_deviation": number(row[spread])},
            fault=f"{mos} is {row[mos]!r}" if score is None else None,
        )


AGIQA3K = DataSet(
    name="agiqa3k",
    tasks={
        "technical": LabelMap(0.0, 4.488740784, "least and greatest mos_quality of all 2,982 images"),
        "alignment": LabelMap(0.021462288, 4.286204297, "least and greatest mos_align of all 2,982 images"),
    },
    read=read,
    facts={
        "splits": "none official; all are `test`, as DeQA-Score, Q-Insight and VisualQuality-R1 use them",
        "licence": "MIT (README of lcysyzxdxc/AGIQA-3k-Database)",
    },
    expected_rows=lambda options: 2_982,
)

if __name__ == "__main__":
    main(AGIQA3K, __doc__)
