"""The modality of a plan's channels: named, derived from Hounsfield units, or unknown."""

import pytest

from focalis.planning import NetworkSettings, Normalisation, Plan, other_modalities
from focalis.planning.modality import modality_of

WINDOW, ZSCORE = Normalisation(kind="window", low=-900, high=200), Normalisation()


def plan(*channels):
    return Plan(
        channels=[name for name, _ in channels],
        labels={1: "lesion"},
        spacing_zyx_mm=(1, 1, 1),
        normalisation=[how for _, how in channels],
        patch_zyx=(4, 4, 4),
        batch=1,
        network=NetworkSettings(strides_zyx=((1, 1, 1),)),
    )


@pytest.mark.parametrize(
    ("channel", "how", "modality"),
    [
        ("CT", ZSCORE, "CT"),
        ("portal-ct", ZSCORE, "CT"),
        ("MRI", ZSCORE, "MR"),
        ("T1w", ZSCORE, "MR"),
        ("FLAIR", ZSCORE, "MR"),
        ("PET", ZSCORE, "PT"),
        ("PT", WINDOW, "PT"),
        ("image", WINDOW, "CT"),
        ("image", ZSCORE, ""),
        ("octet", ZSCORE, ""),
        ("PET_CT", WINDOW, ""),
    ],
)
def test_a_name_tells_the_modality_and_else_a_window_of_hounsfield_units(channel, how, modality):
    assert modality_of(channel, how) == modality


def test_only_another_modality_is_reported():
    nodules = plan(("image", WINDOW))
    assert other_modalities(nodules, ["PT"]) == ("it is a PT series, and the model is for CT",)
    assert other_modalities(nodules, ["MR"]) == ("it is an MR series, and the model is for CT",)
    for known_or_untold in (["CT"], [""], ["SC"], []):
        assert other_modalities(nodules, known_or_untold) == ()
    assert other_modalities(plan(("image", ZSCORE)), ["PT"]) == ()


def test_of_several_channels_the_one_is_named():
    both = plan(("CT", WINDOW), ("PET", ZSCORE))
    assert other_modalities(both, ["CT", "PT"]) == ()
    assert other_modalities(both, ["CT", "MR"]) == ("PET is an MR series, and the model takes there PT",)
