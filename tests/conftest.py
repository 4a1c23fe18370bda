"""What every test shares: one thread, so that tests are quick on small arrays and equal on every machine."""

import peers
import pytest
import torch

pytest_plugins = ["dicom_fixtures"]

torch.set_num_threads(1)


def pytest_sessionstart() -> None:
    if peers.required() and (lacking := peers.missing()):
        pytest.exit(
            f"FOCALIS_REQUIRE_PEERS is 1, but these are not installed: {', '.join(sorted(lacking))}", 1
        )


@pytest.fixture(autouse=True)
def _same_random_start() -> None:
    torch.manual_seed(0)
