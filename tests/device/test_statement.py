"""What the documentation says of limits, SOP classes and transfer syntaxes is what the code does."""

import re
from pathlib import Path

from pynetdicom import AE

from focalis.device.config import Config
from focalis.device.examine import TRANSFER_SYNTAXES
from focalis.device.node import STATUS
from focalis.device.web.server import CONNECTIONS, CONNECTIONS_PER_ADDRESS, IDLE_SECONDS
from focalis.dicom.headers import IMAGE_CLASSES

DOCS = Path(__file__).parents[2] / "docs"


def rows(name, heading):
    """The cells of the first table below a heading or a sentence."""
    text = (DOCS / name).read_text(encoding="utf-8").split(heading, 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE).group()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_limits_are_those_of_the_settings():
    config = Config()
    said = {cells[0].strip("`"): float(cells[1]) for cells in rows("threat-model.md", "## Limits")}

    true = {f"limits.{key}": value for key, value in config.limits.model_dump().items()}
    for key in ("max_pdu", "handshake_seconds", "idle_seconds", "connections_per_address", "connections"):
        true[f"node.{key}"] = getattr(config.node, key)
    true["store.least_free_gb"] = config.store.least_free_gb
    assert said == true


def test_the_fixed_limits_of_the_page_are_those_that_hold():
    text = (DOCS / "threat-model.md").read_text(encoding="utf-8")

    assert f"{CONNECTIONS_PER_ADDRESS} from an address and {CONNECTIONS} in all" in text
    assert f"silent for {IDLE_SECONDS:g} seconds" in text


def test_the_sop_classes_are_those_that_are_negotiated():
    said = {cells[1] for cells in rows("conformance.md", "SOP classes:")}

    assert said == {"1.2.840.10008.1.1", *IMAGE_CLASSES}


def test_the_transfer_syntaxes_are_those_that_are_negotiated():
    said = [cells[1] for cells in rows("conformance.md", "Transfer syntaxes of the storage classes")]

    assert said == list(TRANSFER_SYNTAXES)


def test_the_statuses_are_those_that_are_answered():
    said = {int(cells[1], 16) for cells in rows("conformance.md", "before it is answered.")}

    assert said == set(STATUS.values())


def test_the_implementation_class_is_the_one_that_is_announced():
    assert str(AE().implementation_class_uid) in (DOCS / "conformance.md").read_text(encoding="utf-8")
