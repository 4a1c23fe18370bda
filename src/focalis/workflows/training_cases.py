"""Which images a model has seen when it was made: figures on them say nothing about others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from focalis.display import listed
from focalis.model import Model
from focalis.volume import PROFILE, Volume, content_digest, content_profile, profile_similarity
from focalis.workflows.model_record import members_of

Role = Literal["trained the model", "chose its operating point"]
KnownBy = Literal["image content", "similar content", "name only"]
TRAINED, CHOSE = get_args(Role)
SEEN = "seen_in_training"
"""In a table of lesions: what the case was used for when the model was made; null for nothing, "not known" if the model
file does not say."""
COPY = 0.9
"""An image whose profile is so similar to a case's is a copy of it, or another date of the same person."""
LISTED = 5
"""So many cases are named in a line; of the others the number."""


@dataclass(frozen=True)
class Seen:
    """A case that a model has seen.

    Attributes:
        role: what it was used for; if members of an ensemble used it differently, training counts.
        known_by: how it was recognised. Similar content is that of a copy that was rounded, rescaled or cropped a
            little, or of another date of the same person on the same grid. A name alone may be that of another image.
    """

    role: Role
    known_by: KnownBy
    case: str


@dataclass(frozen=True)
class SeenCases:
    """All cases that a model has seen.

    Attributes:
        by_digest: digest or profile of an image, any channel, to its case.
        by_name: name of a case to its role, of models that know no contents.
    """

    by_digest: Mapping[str, Seen]
    by_name: Mapping[str, Seen]

    @classmethod
    def of(cls, model: Model) -> SeenCases:
        """What the model file says; nothing if it does not say."""
        by_digest: dict[str, Seen] = {}
        by_name: dict[str, Seen] = {}
        for member in members_of(model):
            images = member.get("images")
            if isinstance(images, Mapping):
                for digest, seen in _digests(images):
                    _join(by_digest, digest, seen)
                continue
            cases = member.get("cases")
            if isinstance(cases, Mapping):
                for key, role in (("train", TRAINED), ("inner", CHOSE)):
                    for name in cases.get(key) or ():
                        _join(by_name, str(name), Seen(role, "name only", str(name)))
        return cls(by_digest, by_name)

    @property
    def known(self) -> bool:
        """Whether the model knows any case that it has seen."""
        return bool(self.by_digest or self.by_name)

    def document(self, seen: Seen | None) -> dict[str, Any]:
        """What the table of a case says of it; see `SEEN`."""
        return {SEEN: asdict(seen) if seen else None if self.known else "not known"}

    def find(self, name: str, volumes: Sequence[Volume]) -> Seen | None:
        """The case that these images are, or None; `volumes` are its channels, in any order."""
        if self.by_digest:
            digests = [content_digest(volume.array) or "" for volume in volumes]
            found = [self.by_digest[digest] for digest in digests if digest in self.by_digest]
            if found := found or list(self._similar(volumes)):
                return min(found, key=lambda seen: seen.role != TRAINED)
        return self.by_name.get(name)

    def _similar(self, volumes: Sequence[Volume]) -> Iterator[Seen]:
        """Per channel the case whose content is the most similar, if it is similar enough."""
        known = [(mark, seen) for mark, seen in self.by_digest.items() if mark.startswith(PROFILE)]
        for volume in volumes if known else ():
            profile = content_profile(volume.array)
            alike = (
                [(profile_similarity(mark, profile, COPY), seen) for mark, seen in known] if profile else []
            )
            greatest, best = max(alike, key=lambda pair: pair[0], default=(0.0, None))
            if best and greatest >= COPY:
                yield replace(best, known_by="similar content")


def trained_on(provenance: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What trained the model that a training started from, as "CASE of NAME" to digests: the new model knows it too."""
    images = provenance.get("images")
    trained = images.get(TRAINED) if isinstance(images, Mapping) else None
    return {f"{case} of {name}": digests for case, digests in (trained or {}).items()}


def as_seen(content: object) -> Seen | None:
    """What `asdict` made of a `Seen`; None of anything else."""
    if not isinstance(content, Mapping) or content.get("role") not in get_args(Role):
        return None
    known_by: KnownBy = next(
        (each for each in get_args(KnownBy) if each == content.get("known_by")), "image content"
    )
    return Seen(content["role"], known_by, str(content.get("case", "")))


def seen_line(seen: Mapping[str, Seen], cases: int, doing: str) -> str:
    """One line that says which of some cases the model has seen; empty if none.

    Args:
        doing: what is then worth nothing, such as "the figures on them".
    """
    if not seen:
        return ""
    roles = Counter(each.role for each in seen.values())
    parts = [f"{roles[role]} {role}" for role in (TRAINED, CHOSE) if roles[role]]
    names = [name if name == each.case else f"{name} (as {each.case})" for name, each in sorted(seen.items())]
    by_name = sum(each.known_by == "name only" for each in seen.values())
    doubt = (
        f"; {by_name} known by name only, because this model file keeps no image contents" if by_name else ""
    )
    similar = sum(each.known_by == "similar content" for each in seen.values())
    doubt += (
        f"; {similar} known by similar content: copies, or other dates of the same persons" if similar else ""
    )
    return (
        f"{len(seen)} of {cases} cases were seen when the model was made ({', '.join(parts)}), so {doing} "
        f"flatter it: {listed(names, LISTED)}{doubt}"
    )


def seen_alone(seen: Seen) -> str:
    """What to say of a single image that a model has seen."""
    copy = "a copy of, or another date of the same person as, " if seen.known_by == "similar content" else ""
    return f"is {copy}{seen.case}, which {seen.role}, so what is found in it flatters the model"


def _digests(images: Mapping[str, Any]) -> Iterable[tuple[str, Seen]]:
    """Every digest with its case, except channels that different cases share: they do not tell one from another."""
    rows = [
        (str(digest), Seen(role, "image content", str(name)))
        for role in get_args(Role)
        for name, digests in (images.get(role) or {}).items()
        for digest in digests
    ]
    whole: dict[str, set[tuple[str, ...]]] = {}
    for role in get_args(Role):
        for digests in (images.get(role) or {}).values():
            for digest in digests:
                whole.setdefault(str(digest), set()).add(tuple(sorted(map(str, digests))))
    return [(digest, seen) for digest, seen in rows if len(whole[digest]) == 1]


def _join(found: dict[str, Seen], key: str, seen: Seen) -> None:
    """Add a case; one that trained any member counts as training."""
    if key not in found or seen.role == TRAINED:
        found[key] = seen
