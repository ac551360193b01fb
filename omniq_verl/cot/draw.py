"""Choose the images to ask about: a number of rows of each data source, drawn by seed from all of its rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from omniq_verl.data.row_refs import RowRef
from omniq_verl.preparation.readers import draw


def draw_rows(refs: Sequence[RowRef], take: Mapping[str, int], limit: int | None, seed: int) -> list[RowRef]:
    """Draw rows, in the order of the data.

    A smaller draw is part of a larger one, and adding a data source does not change the rows of the others. A run can
    therefore be enlarged, and continues with the answers it has.

    Args:
        refs: all rows.
        take: number of rows by name of the data source; if empty, all rows of all data sources.
        limit: maximum number of rows in total, shared between the data sources as evenly as their sizes allow; None: no
            limit.
        seed: seed of the draw.

    Raises:
        ValueError: ``take`` names a data source that has no rows, or asks for more rows than it has.
    """
    sources = by_source(refs)
    if unknown := sorted(take.keys() - sources.keys()):
        raise ValueError(f"take: there are no rows of {unknown[0]}. Fix: use the names {', '.join(sources)}")
    for name, wanted in take.items():
        if not 1 <= wanted <= len(sources[name]):
            raise ValueError(
                f"take: {wanted:,} rows of {name} are wanted, but the data has {len(sources[name]):,}."
                f" Fix: ask for 1 to {len(sources[name])}"
            )
    sizes = dict(take) or {name: len(rows) for name, rows in sources.items()}
    sizes = even_shares(sizes, limit)
    chosen = {ref.key for name, size in sizes.items() for ref in ordered(sources[name], seed)[:size]}
    return [ref for ref in refs if ref.key in chosen]


def by_source(refs: Iterable[RowRef]) -> dict[str, list[RowRef]]:
    """Group the rows by data source. The data sources are in the order of their first rows."""
    found: defaultdict[str, list[RowRef]] = defaultdict(list)
    for ref in refs:
        found[ref.info["data_source"]].append(ref)
    return dict(found)


def even_shares(sizes: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """Share ``limit`` between parts as evenly as their sizes allow. A remainder goes to the largest parts.

    For example, three large parts share 40 as 14, 13 and 13. A part with fewer rows leaves the rest to the others.
    """
    shares, left = {}, sum(sizes.values()) if limit is None else limit
    for number, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):  # smallest first
        parts = len(sizes) - number
        shares[name] = min(sizes[name], left // parts)
        left -= shares[name]
    return {name: shares[name] for name in sizes}


def ordered(refs: Iterable[RowRef], seed: int) -> list[RowRef]:
    """Sort the rows in the order in which they are drawn. It depends only on the seed and their keys."""
    return sorted(refs, key=lambda ref: (draw(seed, "cot", ref.key), ref.key))
