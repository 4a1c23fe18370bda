"""The list of public sets: complete, unambiguous, and what its source says."""

import re

import pytest

from focalis.dataset.public import PUBLIC_SETS, public_set
from focalis.errors import UsageError

NAMES = [known.name for known in PUBLIC_SETS]


def test_the_decathlons_ten_tasks_are_there() -> None:
    assert [name[:6] for name in NAMES] == [f"Task{number:02d}" for number in range(1, 11)]


def test_task04_lies_where_it_lies() -> None:
    known = public_set("Task04_Hippocampus")

    assert known.url == "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar"
    assert known.checksum == "md5:9d24dba78a72977dbd1d2e110310f31b"
    assert known.labels == {1: "Anterior", 2: "Posterior"}
    assert known.cases == 260
    assert known.licence == "CC BY-SA 4.0"


@pytest.mark.slow  # importing MONAI takes seconds
def test_addresses_and_checksums_are_those_that_monai_downloads_by() -> None:
    datasets = pytest.importorskip("monai.apps.datasets")
    theirs = datasets.DecathlonDataset

    assert {known.name: known.url for known in PUBLIC_SETS} == theirs.resource
    assert {known.name: known.checksum for known in PUBLIC_SETS} == {
        name: f"md5:{md5}" for name, md5 in theirs.md5.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_complete(name: str) -> None:
    known = public_set(name)

    assert known.url.startswith("https://")
    assert known.url.endswith((".tar", ".tar.gz", ".tgz", ".zip"))
    assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", known.checksum)
    assert known.licence_url.startswith("https://")
    assert list(known.labels) == list(range(1, len(known.labels) + 1))
    assert known.channels
    assert known.megabytes > 0
    assert known.cases > 0
    assert all((known.title, known.licence, known.citation, known.layout, *known.labels.values()))


def test_no_name_or_alias_is_used_twice() -> None:
    names = [name for known in PUBLIC_SETS for name in (known.name, *known.aliases)]

    assert len(set(names)) == len(names)


def test_a_set_is_found_by_its_alias() -> None:
    assert public_set("msd_hippocampus").name == "Task04_Hippocampus"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"Task4: is not a public data set .* Task04_Hippocampus"):
        public_set("Task4")
