"""A few hundred mutated files and conversations: no crash, no hang, and honest senders are heard in between."""

import pytest
from fuzzing import (
    fuzz_conversations,
    fuzz_files,
    honest_files,
    mutated_conversation,
    mutated_file,
)

from focalis.device.config import Config
from focalis.device.node import Node


def test_a_case_follows_from_its_seed():
    assert mutated_file(7) == mutated_file(7)
    assert mutated_conversation(7) == mutated_conversation(7)
    assert len({mutated_file(seed) for seed in range(50)}) > 45


def test_what_is_mutated_is_honest_before(intake):
    with intake.sender("fuzz") as sender:
        assert [sender.take([data]).outcome for data in honest_files()] == ["kept"] * 5


def test_mutated_files_are_survived(intake):
    found = fuzz_files(intake, range(400), hang_seconds=30)

    outcomes = found.pop("outcomes")
    assert found == {"crashes": [], "hangs": [], "deaf": []}
    assert min(outcomes["kept"], outcomes["quarantined"], outcomes["foreign"]) > 2
    assert list((intake.store.folder / "incoming").iterdir()) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_mutated_conversations_are_survived(make_intake):
    settings = {"port": 0, "handshake_seconds": 1, "idle_seconds": 2, "connections_per_address": 64}
    intake = make_intake(node=settings)
    node = Node(Config.model_validate({"node": settings}), intake)
    node.start()
    try:
        found = fuzz_conversations(node, range(150), hang_seconds=20)
    finally:
        node.stop()

    outcomes = found.pop("outcomes")
    assert found == {"crashes": [], "hangs": [], "deaf": []}
    assert min(outcomes["aborted"], outcomes["rejected"], outcomes["answered"]) > 2
