"""Page and plot of a heatmap: an answer's tokens, each coloured by its entropy."""

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from rich.cells import cell_len

from omniq_verl.data.files import replace_text
from omniq_verl.data.images import data_url
from omniq_verl.evaluation.plots import save_figure
from omniq_verl.generation.provenance import lines_of

About = Mapping[str, Any]
"""Content of ``heatmap.json``, or its part about one checkpoint."""
NEWLINE, TAB, PART = "\u21b5", "\u21e5", "\u25cc"
"""Signs for invisible text: a line end, a tab, a token that is only part of a character."""
_COLUMNS, _WIDTH, _LINE, _MARGIN = 84, 9.6, 0.29, 0.3
"""Size of the plot: characters per line, then the total width, the height of a line and the side margin in inches."""
_HIGHEST = 60_000  # maximum height in pixels; matplotlib's limit is 65,536


@dataclass(frozen=True)
class Strip:
    """The ``T`` tokens of an answer. Each has a value in nats that sets its colour."""

    title: str
    note: str
    values: np.ndarray
    underlined: np.ndarray
    hover: list[str]
    colours: ScalarMappable
    unit: str

    def paint(self) -> tuple[list[str], list[str]]:
        """Return the background and text colour of every token."""
        fills = self.colours.to_rgba(self.values)
        light = fills[:, :3] @ (0.299, 0.587, 0.114)
        return [to_hex(fill) for fill in fills], ["#111111" if value > 0.5 else "#ffffff" for value in light]

    def bar(self) -> tuple[list[str], list[str]]:
        """Return the colours and labels of the colour bar, both evenly spaced."""
        low, high = self.colours.get_clim()
        steps = self.colours.to_rgba(np.linspace(low, high, 11))
        return [to_hex(step) for step in steps], [f"{value:.2f}" for value in np.linspace(low, high, 5)]


def visible(text: str) -> str:
    """Return a token's text, with a sign or number for each character that is invisible or would disturb the layout."""
    text = text.replace("\n", NEWLINE).replace("\t", TAB)
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text) or PART


def write_heatmap(out: Path, about: About, tables: Sequence[pd.DataFrame], image: bytes) -> Path:
    """Write ``heatmap.png`` and ``heatmap.html`` into the folder ``out``; returns the page.

    Args:
        out: an existing folder.
        about: content of ``heatmap.json``.
        tables: one per checkpoint, with one row per token: ``token_numbers``, and the token's text as ``token``.
        image: JPEG or PNG.
    """
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    picture.thumbnail((480, 480))
    shown, strips = [visible(text) for text in tables[0]["token"]], strips_of(about["checkpoints"], tables)
    _draw(about, shown, strips, picture, out / "heatmap.png")
    return replace_text(out / "heatmap.html", _page(about, shown, strips, picture))


def strips_of(checkpoints: Sequence[About], tables: Sequence[pd.DataFrame]) -> list[Strip]:
    """Return one strip per checkpoint on a common colour scale, and for two checkpoints also their difference."""
    most = max(table["entropy"].max() for table in tables) or 1.0
    colours = ScalarMappable(Normalize(0, most), "YlGnBu")
    strips = []
    for one, table in zip(checkpoints, tables, strict=True):
        gate = f"{one['tokens_passed']} of {one['tokens']} tokens, from {one['gate_threshold']:.3f} nats on"
        note = f"mean {one['mean_entropy']:.3f} nats; underlined: the gate's {gate}"
        hover = [_hover(one["name"], line) for line in table.itertuples()]
        values, passed = table["entropy"].to_numpy(), table["passed"].to_numpy()
        strips.append(Strip(f"{one['name']}: entropy", note, values, passed, hover, colours, "entropy (nats)"))
    return [*strips, _difference(*strips)] if len(strips) == 2 else strips


def _difference(first: Strip, second: Strip) -> Strip:
    change = second.values - first.values
    most = np.abs(change).max() or 1.0
    legend = "red: the second hesitates more, blue: less; underlined: passes one gate only"
    hovers = zip(first.hover, second.hover, change, strict=True)
    return Strip(
        title="Difference: second minus first",
        note=f"mean {change.mean():+.3f} nats; {legend}",
        values=change,
        underlined=first.underlined != second.underlined,
        hover=[f"{one}\n{other}\ndifference {value:+.3f} nats" for one, other, value in hovers],
        colours=ScalarMappable(Normalize(-most, most), "RdBu_r"),
        unit="difference of entropies (nats)",
    )


def _hover(name: str, line: Any) -> str:
    token = f'"{visible(line.token)}"' if line.token else "part of a character"
    return f"{token}, {name}\nentropy {line.entropy:.3f} nats\nprobability {line.probability:.4f}\nrank {line.rank}"


def _page(about: About, shown: Sequence[str], strips: Sequence[Strip], picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    template = Environment(loader=PackageLoader("omniq_verl.evaluation"), autoescape=True).get_template("heatmap.html")
    known = {"about": about, "conditions": lines_of(about.get("provenance")), "image": data_url(buffer.getvalue())}
    return template.render(**known, shown=shown, strips=strips, newline=NEWLINE)


def place_cells(shown: Sequence[str], columns: int = _COLUMNS) -> list[tuple[int, int, int]]:
    """Place each token in lines of ``columns`` characters; return its line, column and width.

    A line end in a token ends the line.
    """
    refs, line, column = [], 0, 0
    for text in shown:
        width = min(max(cell_len(text), 1), columns)
        if column + width > columns:
            line, column = line + 1, 0
        refs.append((line, column, width))
        column += width
        if NEWLINE in text:
            line, column = line + 1, 0
    return refs


def _draw(about: About, shown: Sequence[str], strips: Sequence[Strip], picture: Image.Image, out: Path) -> None:
    refs = place_cells(shown)
    head, tall = 1.9, _LINE * (refs[-1][0] + 1)
    figure = Figure(figsize=(_WIDTH, head + len(strips) * (tall + 1.1)))
    _axes(figure, _MARGIN, 0.2, 1.5, 1.5).imshow(picture, interpolation="nearest")
    question = textwrap.wrap(visible(about["question"]), 95, max_lines=6)
    words = "\n".join([*question, "", f"Image: {Path(about['image']).name}", f"Answer: {about['answer_is']}"])
    _axes(figure, 2.1, 0.2, 7.2, 1.5).text(0, 1, words, va="top", fontsize=9, parse_math=False)
    for number, strip in enumerate(strips):
        top = head + number * (tall + 1.1)
        axis = _axes(figure, _MARGIN, top + 0.45, _WIDTH - 2 * _MARGIN, tall)
        axis.set(xlim=(0, _COLUMNS), ylim=(refs[-1][0] + 1, 0))
        _draw_tokens(axis, strip, shown, refs)
        _draw_bar(_axes(figure, _MARGIN, top + 0.5 + tall, 3.2, 0.1), strip)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the plot shows a box, but the page shows the character
        save_figure(figure, out, dpi=min(120, _HIGHEST / figure.get_figheight()))


def _draw_tokens(axis: Axes, strip: Strip, shown: Sequence[str], refs: Sequence[tuple[int, int, int]]) -> None:
    axis.set_title(strip.title, loc="left", fontsize=11, pad=18, parse_math=False)
    axis.annotate(strip.note, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=8, color="#555555")
    size = 72 * (_WIDTH - 2 * _MARGIN) / _COLUMNS / 0.602  # width of a character in DejaVu Sans Mono
    fills, inks = strip.paint()
    boxes = [Rectangle((column, line), width, 0.82) for line, column, width in refs]
    axis.add_collection(PatchCollection(boxes, facecolor=fills, edgecolor="white"), autolim=False)
    for text, (line, column, _), ink in zip(shown, refs, inks, strict=True):
        axis.text(column, line + 0.4, text, color=ink, size=size, family="monospace", va="center", parse_math=False)
    lines, columns, widths = np.array(refs)[strip.underlined].T
    axis.hlines(lines + 0.9, columns + 0.1, columns + widths - 0.1, color="#111111", linewidth=2)


def _draw_bar(axis: Axes, strip: Strip) -> None:
    axis.set_axis_on()
    axis.figure.colorbar(strip.colours, cax=axis, orientation="horizontal").ax.tick_params(labelsize=7)
    axis.text(1.04, 0.5, strip.unit, transform=axis.transAxes, fontsize=8, va="center")


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes without lines, positioned in inches from the upper left corner."""
    whole = figure.get_figheight()
    axis = figure.add_axes((left / _WIDTH, 1 - (top + height) / whole, width / _WIDTH, height / whole), anchor="NW")
    axis.set_axis_off()
    return axis
