"""Why not to take a DICOM result at its word: what `predict` and the device write into it."""

from __future__ import annotations

from collections.abc import Sequence

from focalis.dicom import Caution
from focalis.workflows.scope import outside_line
from focalis.workflows.training_cases import Seen


def cautions_of(
    *,
    partial: str = "",
    outside: Sequence[str] = (),
    seen: Seen | None = None,
    collapse: str = "",
    missing: Sequence[str] = (),
) -> tuple[Caution, ...]:
    """Reasons to doubt a result.

    Args:
        partial: why the series is not whole; empty if it is.
        outside: how it lies outside of what the model was trained on, a phrase each.
        seen: the case of the model's training that the series is.
        collapse: how the training failed; empty if it did not.
        missing: the channels that the result was made without.
    """
    found = []
    if partial:
        found.append(Caution("PARTIAL", f"made of an incomplete series: {partial}"))
    if missing:
        found.append(Caution("WITHOUT CHANNEL", f"made without {', '.join(missing)}"))
    if outside:
        found.append(Caution("OUT OF SCOPE", f"the series {outside_line(outside)}"))
    if seen is not None:
        found.append(
            Caution("TRAINING CASE", f"the series {seen.role} (case {seen.case}), so the result flatters it")
        )
    if collapse:
        found.append(Caution("FAILED TRAINING", collapse))
    return tuple(found)
