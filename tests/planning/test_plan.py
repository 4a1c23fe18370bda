"""The plan file: what is written is read back, and what is wrong is named."""

import pytest

from focalis.errors import PlanError
from focalis.planning import LossSettings, NetworkSettings, Normalisation, Plan, read_plan, write_plan
from focalis.planning.parts import augmentations_of, default_augmentation, loss_of


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
    path.write_text(path.read_text().replace("  turn_share: 0.4", "  turn_share: 0.6"))
    assert read_plan(path).training.turn_share == 0.6


def test_a_part_keeps_its_own_parameters_beside_its_name(tmp_path):
    path = tmp_path / "plan.yaml"
    write_plan(plan(loss=LossSettings(name="tversky", false_negative=0.9)), path)
    assert "  false_negative: 0.9" in path.read_text()
    assert read_plan(path).loss.parameters == {"false_negative": 0.9}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("dice_cross_entropy", {}),
        ("focal", {"r": 2.0}),
        ("distance_focal_growth", {"r": 2.0, "k_per_mm": 0.3, "floor": 0.1, "cap_mm": 50.0}),
    ],
)
def test_an_older_plan_gives_a_loss_the_parameters_that_it_takes(name, kept):
    older = {"name": name, "r": 2.0, "weight": "gaussian", "k_per_mm": 0.3, "floor": 0.1, "cap_mm": 50.0}
    read = plan(loss=LossSettings.model_validate(older))
    assert read.loss.parameters == kept
    loss_of(read)


def test_each_augmentation_is_an_entry_of_its_own(tmp_path):
    path = tmp_path / "plan.yaml"
    write_plan(plan(augmentation=default_augmentation()), path)
    line = "  - {name: noise, share: 0.15, limit: 0.15}\n"
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, "").replace("name: blur, share: 0.15", "name: blur, share: 0.5"))
    names = [entry.name for entry in read_plan(path).augmentation]
    assert names == ["blur", "brightness", "contrast", "gamma"]
    assert augmentations_of(read_plan(path))[0].share == 0.5


def test_a_plan_may_have_no_augmentation(tmp_path):
    write_plan(plan(augmentation=()), tmp_path / "plan.yaml")
    assert augmentations_of(read_plan(tmp_path / "plan.yaml")) == ()


def test_an_older_plan_has_the_default_augmentations():
    older = plan().model_dump()
    del older["augmentation"]
    explicit = plan(augmentation=default_augmentation())
    assert augmentations_of(Plan.model_validate(older)) == augmentations_of(explicit)


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
        ("  turn_share: 0.4", "  turn_share: -1", r"training\.turn_share: "),
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
