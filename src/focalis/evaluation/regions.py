"""What is judged by name: labels, or nested regions of several labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from focalis.volume import Volume


def views(
    names: Mapping[int, str], regions: Mapping[str, Sequence[int]], ignore: int | None, *maps: Volume
) -> Iterator[tuple[dict[int, str], list[Volume]]]:
    """Names, and label maps to judge by them: the maps as they are, or once for each region.

    A region's map holds one value, that of the label in it and in no inner region; the ignored value stays.

    Args:
        regions: name to label values, from the outermost to the innermost; none where labels are judged. Regions of
            which `names` has no label are left out.
        ignore: the value where nobody has judged.
    """
    if not regions:
        yield dict(names), list(maps)
    for name, values in regions.items():
        if not set(values) & set(names):
            continue
        inner = set().union(*(other for other in regions.values() if set(other) < set(values)))
        (own,) = set(values) - inner
        yield (
            {own: name},
            [
                Volume(
                    np.where(np.isin(each.array, values), own, np.where(each.array == ignore, each.array, 0)),
                    each.grid,
                )
                for each in maps
            ],
        )
