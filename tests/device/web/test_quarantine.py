"""The quarantine's page: groups, search, download and removal."""

import io
import re
import zipfile

import pytest
from page_clients import csrf_of


@pytest.fixture
def aside(phantom):
    """Two objects of a study with one cause, and one that is not DICOM."""
    task_id = phantom.study("Lindqvist^Maja", seed=1)
    series_uid = phantom.store.task(task_id).series_uid
    for number in (1, 2):
        phantom.store.quarantine(
            b"cut" * number,
            "has pixel data cut short",
            "C-STORE MR1 10.0.0.7",
            series_uid,
            numbers=f"{number}000 bytes needed",
        )
    phantom.store.quarantine(b"junk", "is <no> DICOM file", "upload by anna")
    return task_id


def keys(text):
    return re.findall(r'action="/quarantine/([0-9a-f]{16})/remove"', text)


def test_objects_are_grouped_by_study_and_cause(client, aside):
    text = client.get("/quarantine").text

    assert len(keys(text)) == 2
    assert "<h2>has pixel data cut short</h2>" in text
    assert "has pixel data cut short: 2000 bytes needed" in text
    assert f'<a href="/studies/{aside}">Lindqvist, Maja</a>' in re.sub(
        r">\s+", ">", re.sub(r"\s+<", "<", text)
    )
    assert "is &lt;no&gt; DICOM file" in text
    assert "2 objects, 9 B · from C-STORE MR1 10.0.0.7" in text


def test_it_is_searched_by_cause_sender_and_series(client, phantom, aside):
    uid = phantom.store.task(aside).series_uid
    for words, count in (("cut short", 1), ("ANNA", 1), ("mr1", 1), (uid, 1), ("object", 0), ("", 2)):
        assert len(keys(client.get("/quarantine", params={"find": words}).text)) == count, words


@pytest.mark.usefixtures("aside")
def test_a_group_is_downloaded_as_it_came(client):
    key = keys(client.get("/quarantine?find=cut").text)[0]
    answer = client.get(f"/quarantine/{key}.zip")

    assert "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert sorted(archive.read(name) for name in archive.namelist()) == [b"cut", b"cutcut"]


@pytest.mark.usefixtures("aside")
def test_a_group_is_removed_and_the_log_says_who_did(client, phantom):
    key = keys(client.get("/quarantine?find=cut").text)[0]
    assert (
        client.post(f"/quarantine/{key}/remove", headers={"x-csrf-token": csrf_of(client)}).status_code == 303
    )

    (left,) = phantom.store.quarantined()
    assert left.reason == "is <no> DICOM file"
    assert len(list((phantom.store.folder / "quarantine").glob("*.dcm"))) == 1
    assert "local removed 2 quarantined objects" in phantom.store.events(1)[0].text
    again = client.post(f"/quarantine/{key}/remove", headers={"x-csrf-token": csrf_of(client)})
    assert again.status_code == 404
