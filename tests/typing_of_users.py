"""What a type checker knows of our names; read by it, and never run."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np

from omniq_verl import Client, Comparer, Comparison, RaliScorer, Score, Scorer
from omniq_verl.evaluation import correlations
from omniq_verl.rali import RaliScorer as FromRoom
from omniq_verl.t2i import best_of_n


def use(scorer: Scorer, client: Client, comparer: Comparer, rali: RaliScorer, array: np.ndarray) -> None:
    assert_type(scorer.score("a.png"), Score)
    assert_type(scorer.score(Path("a.png"), samples=3), Score)
    assert_type(scorer.score(["a.png", b"data"], scale="0-5"), list[Score])
    assert_type(scorer.score("a.png", ["technical", "aesthetic"]), dict[str, Score])
    assert_type(scorer.score(["a.png"], task=("technical", "aesthetic")), list[dict[str, Score]])
    assert_type(scorer.score(array), Any)
    assert_type(client.score("a.png"), Score)
    assert_type(client.score(["a.png"], "technical", model="rali"), list[Score])
    assert_type(rali.score("a.png"), Score)
    assert_type(rali.score(["a.png"]), list[Score])
    assert_type(comparer.compare([("a.png", "b.png")]), list[Comparison])
    assert_type(correlations([1, 2, 3], [1, 2, 3]), dict[str, float | int | None])
    assert_type(RaliScorer, type[FromRoom])
    best_of_n.__call__  # noqa: B018  a function, and no module
