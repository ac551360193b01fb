"""Are data sets far apart as images and close together as reasoning?

Source: RALI, section 3. Figure 4 shows t-SNE plots of visual and reasoning tokens of KonIQ and SPAQ; figure 2 shows
CLIP features of the reasoning before and after RL. A t-SNE plot has no scale, so the page also gives numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console

from omniq_verl.evaluation.curves import COLOURS
from omniq_verl.evaluation.grouping import group_names
from omniq_verl.findings.distances import domain_probe, frechet, mmd, plane
from omniq_verl.findings.features import ridge_predictions, stack, token_features
from omniq_verl.findings.measures import agreement, cell
from omniq_verl.findings.page import Finding, as_figure, new_figure, number, table, write_finding
from omniq_verl.findings.reader import Reader
from omniq_verl.findings.reading_loop import Skipped, read_answers
from omniq_verl.findings.setup import Answered, Setup, ask_all, check_readable
from omniq_verl.findings.text_only import reasonings
from omniq_verl.generation.request import Sampling

FEWEST = 5
"""Data sets with fewer images are left out of the comparison. Our choice."""
SPACES = {
    "visual": "visual tokens, as the tower gives them",
    "visual_late": "visual tokens, in the language model",
    "reasoning": "reasoning tokens, in the language model",
    "clip": "CLIP's features of the reasoning",
}


@dataclass(frozen=True)
class Points:
    """One model's vectors of N images."""

    name: str
    vectors: dict[str, np.ndarray]
    """Vectors ``[N, D]`` of each space."""
    domains: list[str]
    """Names of the data sets, or groups."""
    domain: np.ndarray
    """Index of each image's data set ``[N]``."""
    target: np.ndarray
    """Labels ``[N]``."""
    skipped: str


def measure_points(
    setup: Setup, answered: Answered, clip: str | None, layer: int, by: str | None, console: Console
) -> Points:
    """Return the vectors of every image whose answer has reasoning and a score.

    Raises:
        ValueError: fewer than two data sets have such answers.
    """
    reader, skipped, found = Reader(answered.spec), Skipped(), {}
    depth = reader.model.config.get_text_config().num_hidden_layers
    if not -depth - 1 <= layer <= depth:
        raise ValueError(f"--layer is {layer}, but the model has {depth}. Fix: give 0 to {depth}, or -1 for the last")
    for key, read in read_answers(setup, answered, reader, skipped, console):
        found[key] = token_features(reader, read, layer)
    keys = list(found)
    sets = (answered.images["set"] if by is None else group_names(answered.images, by)).loc[keys].dropna()
    small = sets.map(sets.value_counts()) < FEWEST
    skipped.counts[f"in sets of fewer than {FEWEST} images"] += int(small.sum())
    sets = sets[~small]
    keys = list(sets.index)
    if sets.nunique() < 2:
        raise ValueError(
            f"{answered.name}: answers with reasoning and a score come from {sets.nunique()} data set(s)"
            f" ({skipped.text()}), but a gap needs two. Fix: give --data of two or more data sets, or --by"
        )
    vectors = {name: stack(found, keys, name) for name in ("visual", "visual_late", "reasoning")}
    if clip is not None:
        texts = reasonings(answered)
        vectors["clip"] = clip_features(clip, [texts[key] for key in keys])
    names, domain = np.unique(sets.astype(str), return_inverse=True)
    return Points(
        answered.name, vectors, names.tolist(), domain, answered.images.target.loc[keys].to_numpy(), skipped.text()
    )


def clip_features(model: str, texts: Sequence[str]) -> np.ndarray:
    """Embed texts with the text encoder of a CLIP or SigLIP ``[N, D]``; each vector has length 1. Long texts are cut.

    Raises:
        ValueError: the model is not a CLIP, or is not safe to open.
    """
    from omniq_verl.rali.encoder import open_model
    from omniq_verl.rali.texts import Texts

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoded = Texts(open_model(model), model, [[text] for text in texts], device)
    return encoded.features[torch.from_numpy(encoded.which)].cpu().numpy()


def gaps(points: Points, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Measure each space: the probe's accuracy over all data sets, both distances of every pair of sets, and how well a
    ridge regression predicts the label."""
    found = {}
    for space, vectors in points.vectors.items():
        probe = domain_probe(vectors, points.domain, resamples, seed)
        pairs: dict[str, dict[str, Any]] = {"mmd": {}, "frechet": {}}
        for one, other in combinations(np.unique(points.domain), 2):
            sides = [vectors[points.domain == which] for which in (one, other)]
            for name, distance in (("mmd", mmd), ("frechet", frechet)):
                found_pair = asdict(distance(sides[0], sides[1], seed=seed))
                pairs[name][f"{points.domains[one]} / {points.domains[other]}"] = found_pair
        quality = agreement(ridge_predictions(vectors, points.target, seed), points.target, resamples)["srcc"]
        accuracy = as_figure(probe.accuracy, probe.bounds, len(vectors))
        found[space] = {"probe": {**accuracy, "chance": probe.chance}, **pairs, "label_srcc": quality}
    return found


def find_domain_gap(setup: Setup, clip: str | None, layer: int, by: str | None, console: Console) -> Finding:
    """Ask every model about all data sets, measure how far they are apart, and write the page.

    Args:
        setup: options of the finding; its rows come from two data sets or more.
        clip: CLIP whose features of the reasoning are measured as well; None: none.
        layer: layer of the language model whose hidden states are used.
        by: key of the rows' details whose values replace the data sets; None: use the data sets.
        console: for tables and progress.

    Raises:
        ValueError: there is only one data set, too few answers have reasoning, or a model cannot be opened.
    """
    check_readable(setup.specs)
    answered = ask_all(setup, Sampling(max_tokens=setup.max_tokens), console)
    points = [measure_points(setup, one, clip, layer, by, console) for one in answered]
    measured = {one.name: gaps(one, setup.resamples, setup.seed) for one in points}
    images = {
        one.name: {
            "images": len(one.domain),
            "sets": dict(zip(one.domains, np.bincount(one.domain).tolist(), strict=True)),
            "left_out": one.skipped,
        }
        for one in points
    }
    finding = Finding(
        name="domain-gap",
        title="Are data sets far apart as images, and close together as reasoning?",
        question="Each image is one vector: the mean over its visual tokens, and over its reasoning's tokens. A linear"
        " probe predicts the data set of images that it was not fitted to, and the maximum mean discrepancy (MMD)"
        " measures the distance of the sets.",
        found=[_sentence(name, one) for name, one in measured.items()],
        tables=[_table(one.name, measured[one.name], images[one.name]) for one in points],
        numbers={"by": by, "layer": layer, "clip": clip, "images": images, "models": measured},
        record=setup.record(layer=layer, clip=clip, by=by),
        figures={"": draw(points, measured, setup.seed)},
        reading=READING,
    )
    write_finding(setup.out, finding, console)
    return finding


READING = (
    "RALI's figure 4 claims a gap between data sets in the visual tokens that is smaller in the reasoning. A"
    " probe at chance and an MMD within its null (p above 0.05) mean that there is no gap that is linear or that a"
    " Gaussian kernel detects.",
    "The probe sees more in longer vectors: compare spaces of one width, such as the second and the third.",
    "Data sets differ in quality, too. A gap in the reasoning is not a fault if one set is worse than the other;"
    " the last column says how well a ridge regression predicts the label from the same vectors.",
    "A space without any information has no gap. Texts that are all alike put the probe at chance and say nothing"
    " about the image.",
    "Distances between clusters of a t-SNE mean little, and it depends on its seed. Read the numbers first.",
    "MMD is unbiased and may be below 0. Its null divides the images at random, 1,000 times.",
    "The Fréchet distance compares two Gaussians, in units of the mean squared distance to the common mean. With"
    " fewer images than dimensions it is too large, also between equal sets. So compare it with its null (100"
    " divisions), and not between different numbers of images.",
)


def _sentence(name: str, measured: Mapping[str, Any]) -> str:
    shown = [f"{SPACES[space]} {cell(one['probe'])}" for space, one in measured.items()]
    chance = measured["visual"]["probe"]["chance"]
    return f"{name}: accuracy of a probe for the data set (chance {chance:.2f}): {'; '.join(shown)}."


def _table(name: str, measured: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for space, one in measured.items():
        for pair, found in one["mmd"].items():
            cells = [cell(one["probe"]), number(found["value"], ".4f"), number(found["null_high"], ".4f")]
            apart = one["frechet"][pair]
            cells += [number(found["p"]), number(apart["value"]), number(apart["null_high"]), number(apart["p"])]
            rows.append([SPACES[space], pair, *cells, cell(one["label_srcc"])])
    columns = ["space", "sets", "probe's accuracy", "MMD squared", "null, 95%", "p", "Fréchet", "null, 95%", "p"]
    columns.append("label's SRCC by ridge")
    return table(f"{name}: {images['images']} images, left out: {images['left_out']}", columns, rows)


def draw(points: Sequence[Points], measured: Mapping[str, Any], seed: int) -> Figure:
    """Draw t-SNE plots of every space (columns) and model (rows), coloured by data set."""
    spaces = list(points[0].vectors)
    columns = 2 if len(spaces) > 3 else len(spaces)
    lines = -(-len(spaces) // columns)
    figure, axes = new_figure(1.3 * lines * len(points) + 0.35, lines * len(points), columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, one in enumerate(points):
        for ref, space in enumerate(spaces):
            axis = axes[row * lines + ref // columns, ref % columns]
            _draw_points(axis, plane(one.vectors[space], seed), one.domain, one.domains)
            accuracy = measured[one.name][space]["probe"]["value"]
            title = f"{one.name}\n" if ref == 0 and len(points) > 1 else ""
            axis.set_title(f"{title}{_SHORT[space]}\nprobe {accuracy:.2f}", fontsize=6, parse_math=False)
    handles, names = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=6, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


_SHORT = {
    "visual": "visual, from the tower",
    "visual_late": "visual, late",
    "reasoning": "reasoning",
    "clip": "CLIP, reasoning",
}
_MARKERS = "o^sDvP"


def _draw_points(axis: Any, refs: np.ndarray, domain: np.ndarray, sets: Sequence[str]) -> None:
    for which in np.unique(domain):
        mine = refs[domain == which]
        axis.scatter(mine[:, 0], mine[:, 1], s=5, alpha=0.7, linewidths=0, color=COLOURS[which % len(COLOURS)],
                     marker=_MARKERS[which % len(_MARKERS)], label=sets[which])  # fmt: skip
