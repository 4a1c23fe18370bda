"""The models that come with Focalis, by name.

Beside this file lie, for each: NAME.safetensors, its card NAME.md, and NAME.sha256, the hash of the file that was
published.
"""

from __future__ import annotations

from pathlib import Path

from focalis.errors import ModelError, UsageError, did_you_mean
from focalis.files import sha256_of

FOLDER = Path(__file__).parent
OF_A_RUN = "model.safetensors"
"""The model file in the folder of a run."""
SHIPPED = {"lidc-nodule": "outlines the nodule in a CT crop of about 51 mm around it, and is not a detector"}
"""Name to what the model does."""
DATA = {"lidc-nodule": "LIDC-IDRI, CC BY 3.0"}
"""Name to the data that the model was trained on, and their licence."""


def card_of(file: Path) -> Path | None:
    """The card of a file that `model_file` found, if it is that of a model that comes with Focalis."""
    shipped = file.stem in SHIPPED and file.resolve() == (FOLDER / f"{file.stem}.safetensors").resolve()
    return FOLDER / f"{file.stem}.md" if shipped else None


def card_line(card: Path) -> str:
    """The line shown to users of a shipped model: what it does, its data with their licence, the card."""
    name = card.stem
    return (
        f"{name}: {SHIPPED[name]}; for research use only, not a medical device; trained on {DATA[name]}; "
        f"its card: {card}"
    )


def model_file(given: Path | str) -> Path:
    """The file of a model that is given by its path, by the folder of its run, or by its name if it comes with Focalis.

    A file of that name in the current folder comes first. Whether a path leads to a model is left to whoever opens it.

    Raises:
        UsageError: a bare word that is neither a file nor a known name.
        ModelError: the model of this name does not lie in this installation, or is not the one that was published.
    """
    path, name = Path(given), str(given)
    if (path / OF_A_RUN).is_file():
        return path / OF_A_RUN
    if path.is_file() or path.name != name or path.suffix:
        return path
    if path.is_dir() and (inside := sorted(path.glob(f"*/{OF_A_RUN}"))):
        raise UsageError.at(name, "is not a run folder", f"did you mean {inside[0].parent}?")
    if name not in SHIPPED:
        raise UsageError.at(
            name,
            "is not a file, and no model of this name comes with Focalis",
            "give the path of a .safetensors file, or one of "
            f"{', '.join(sorted(SHIPPED))}{did_you_mean(name, SHIPPED)}",
        )
    return published_file(name, "give the path of a model file, or train one with focalis fit")


def published_file(name: str, otherwise: str) -> Path:
    """The weights of this name that lie in this installation, if they are those that were published.

    Raises:
        ModelError: they do not lie here, or are not the ones that were published.
    """
    shipped, published = FOLDER / f"{name}.safetensors", FOLDER / f"{name}.sha256"
    try:
        wanted = published.read_text(encoding="ascii").split()[0]
        found = sha256_of(shipped)
    except (OSError, ValueError, IndexError) as error:
        raise ModelError.at(
            name,
            f"this installation of Focalis comes without the model's weights ({shipped} or its .sha256 "
            "cannot be read)",
            otherwise,
        ) from error
    if found != wanted:
        raise ModelError.at(
            shipped, f"has the SHA-256 {found}, published was {wanted}", "install Focalis again"
        )
    return shipped
