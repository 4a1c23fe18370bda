"""A name that is nearly a known one is answered with the known one."""

import pytest

from focalis.errors import PlanError, UsageError, did_you_mean
from focalis.losses.catalogue import loss_spec
from focalis.models import model_file
from focalis.networks.catalogue import network_spec


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("unett", ["unet", "segnet"], "unet"),
        ("SegNet", ["unet", "segnet"], "segnet"),
        ("Tverski", ["dice_focal", "Tversky"], "Tversky"),
        ("resnext", ["dense"], None),
    ],
)
def test_the_nearest_name_is_suggested(name, known, meant):
    assert did_you_mean(name, known) == (f"; did you mean {meant!r}?" if meant else "")


@pytest.mark.parametrize(
    ("call", "error", "meant"),
    [
        (lambda: network_spec("densee"), PlanError, "dense"),
        (lambda: loss_spec("tverski"), PlanError, "tversky"),
        (lambda: model_file("lidc_nodule"), UsageError, "lidc-nodule"),
    ],
)
def test_networks_losses_and_models_suggest(call, error, meant):
    with pytest.raises(error, match=f"did you mean '{meant}'"):
        call()
