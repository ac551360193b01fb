"""Which images are asked about: so many of each data source, drawn by seed over all of its rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from omniq_verl.data.row_refs import RowRef
from omniq_verl.preparation.readers import draw


def draw_rows(refs: Sequence[RowRef], take: Mapping[str, int], limit: int | None, seed: int) -> list[RowRef]:
    """Draw rows, in the order of the data.

    The rows of a smaller number are among those of a greater one, and adding a data source changes no other's, so that
    a run can be enlarged and goes on with what it has.

    Args:
        refs: all rows.
        take: rows of each data source, by its name; without an entry for any, all rows of all.
        limit: at most so many rows in all, shared between the data sources as evenly as their sizes allow.
        seed: of the draw.

    Raises:
        ValueError: ``take`` names a data source that has no rows, or asks for more than it has.
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
    """The rows of each data source, in the order of their first rows."""
    found: defaultdict[str, list[RowRef]] = defaultdict(list)
    for ref in refs:
        found[ref.info["data_source"]].append(ref)
    return dict(found)


def even_shares(sizes: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """Share ``limit`` between parts as evenly as their sizes allow; what is left over goes to the largest.

    40 of three large parts are 14, 13 and 13; a part that has fewer leaves its rest to the others.
    """
    shares, left = {}, sum(sizes.values()) if limit is None else limit
    for number, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):  # the smallest first
        parts = len(sizes) - number
        shares[name] = min(sizes[name], left // parts)
        left -= shares[name]
    return {name: shares[name] for name in sizes}


def ordered(refs: Iterable[RowRef], seed: int) -> list[RowRef]:
    """The rows in the order in which they are drawn, which depends on the seed and their keys alone."""
    return sorted(refs, key=lambda ref: (draw(seed, "cot", ref.key), ref.key))
