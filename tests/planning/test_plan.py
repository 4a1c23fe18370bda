"""The plan file: what is written is read back, and what is wrong is named."""

import pytest

from focalis.errors import PlanError
from focalis.planning import NetworkSettings, Normalisation, Plan, read_plan, write_plan


def plan(**changes):
    settings = {
        "channels": ("FLAIR", "T1"),
        "labels": {1: "core: active", 3: "edema"},
        "spacing_zyx_mm": (3.0, 0.9375, 0.9375),
        "normalisation": (
            Normalisation(),
            Normalisation(kind="window", low=-900, high=180, mean=-310, std=270),
        ),
        "patch_zyx": (16, 48, 48),
        "batch": 3,
        "network": NetworkSettings(strides_zyx=((1, 2, 2), (2, 2, 2), (2, 2, 2))),
        "reasons": {"batch": "it fits"},
    }
    return Plan.model_validate(settings | changes)


def test_a_plan_comes_back_from_its_file(tmp_path):
    write_plan(plan(), tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == plan()


def test_reasons_stand_above_their_decision(tmp_path):
    write_plan(plan(), tmp_path / "plan.yaml")
    lines = (tmp_path / "plan.yaml").read_text().splitlines()
    assert lines[lines.index("batch: 3") - 1] == "# it fits"


def test_an_edited_line_is_what_is_read(tmp_path):
    path = tmp_path / "plan.yaml"
    write_plan(plan(), path)
    path.write_text(path.read_text().replace("  k_per_mm: 0.1", "  k_per_mm: 0.4"))
    assert read_plan(path).loss.k_per_mm == 0.4


def test_outputs_follow_the_label_values_in_order():
    assert plan(labels={4: "b", 2: "a"}).label_values == (2, 4)
    assert plan().outputs == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch: 3", "batch: none", r"plan\.yaml: batch: "),
        ("batch: 3", "bathc: 3", r"plan\.yaml: (batch|bathc): "),
        (
            "patch_zyx: [16, 48, 48]",
            "patch_zyx: [18, 48, 48]",
            "not a multiple of the network's total stride",
        ),
        ("  r: 0.5", "  r: -1", r"loss\.r: "),
        ("channels: [FLAIR, T1]", "channels: [FLAIR", "not valid YAML"),
        ("channels: [FLAIR, T1]", "channels: [FLAIR]", "normalisations"),
    ],
)
def test_a_fault_is_named_with_its_field(tmp_path, old, new, message):
    path = tmp_path / "plan.yaml"
    write_plan(plan(), path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PlanError, match=message) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"none\.yaml: cannot be read"):
        read_plan(tmp_path / "none.yaml")


def test_more_labels_than_class_indices_are_refused():
    assert plan(labels=dict.fromkeys(range(1, 255), "x")).outputs == 255
    with pytest.raises(ValueError, match="255 labels; 254 are the most"):
        plan(labels=dict.fromkeys(range(1, 256), "x"))


def test_a_label_that_no_mask_can_hold_is_refused():
    with pytest.raises(ValueError, match="label values are 1 to 4294967295"):
        plan(labels={2**32: "x"})
