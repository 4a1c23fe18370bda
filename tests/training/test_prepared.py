"""Prepared cases: what lies on disk, when it is taken again, and what crashes and rivals leave behind."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import ndimage
from small_plan import small_plan

from focalis.dataset import IGNORED, Case, PhantomSettings, majority, staple, with_readers, write_phantoms
from focalis.errors import DataError
from focalis.files import ABANDONED_AFTER_S
from focalis.planning import LossSettings, Normalisation, Plan, prepare_image, prepare_label
from focalis.training import prepare_cases
from focalis.training import prepared as module
from focalis.training.patches import draw_patch
from focalis.training.prepared import preparation_key
from focalis.training.prepared_folder import ENTRIES_PER_CASE, UNUSED_AFTER_S
from focalis.volume import read_volume, write_volume

SETTINGS = PhantomSettings(shape_zyx=(24, 24, 24), foreground_share=0.01, lesions=2)
PLAN = small_plan(patch_zyx=(16, 16, 16))
ARRAYS = ("image", "label", "distance_mm")


def prepare_case(case, plan, folder):
    return prepare_cases([case], plan, folder)[0]


@pytest.fixture
def data(tmp_path):
    return write_phantoms(tmp_path / "data", 2, SETTINGS, 0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture
def readings(monkeypatch):
    """The label maps that preparation reads."""
    seen = []
    read = Case.read_label
    monkeypatch.setattr(Case, "read_label", lambda case: seen.append(case.name) or read(case))
    return seen


def entries(folder: Path, case: Case) -> set[str]:
    return {path.name for path in folder.glob(f"{case.name}.*")}


def same(one, other) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS) and all(
        np.array_equal(a, b) for a, b in zip(one.lesions, other.lesions, strict=True)
    )


def test_arrays_are_mapped_and_are_what_the_plan_makes_of_the_files(data, folder):
    source = data.cases[0]
    case = prepare_case(source, PLAN, folder)
    assert all(isinstance(getattr(case, name), np.memmap) for name in ARRAYS)
    assert np.array_equal(case.image, prepare_image([read_volume(source.images[0])], PLAN).array)
    label = prepare_label(read_volume(source.label), PLAN)
    assert np.array_equal(case.label, label)
    distance = ndimage.distance_transform_edt(label == 0)
    assert np.abs(case.distance_mm - distance).max() < 0.02
    assert [case.image.dtype, case.label.dtype, case.distance_mm.dtype] == [np.float32, np.uint8, np.float16]


def test_every_voxel_of_a_small_lesion_is_listed_and_an_even_selection_of_a_large_one(data, folder):
    label = np.zeros((24, 24, 24), np.uint8)
    label[1:3, 1:3, 1:3] = 1
    label[8:20, 8:20, 8:20] = 1  # 1728 voxels: every third
    source = data.cases[0]
    write_volume(replace(read_volume(source.label), array=label), source.label)
    small, large = prepare_case(source, PLAN, folder).lesions
    assert np.array_equal(small, np.argwhere(label[:4, :4, :4]))
    assert np.array_equal(large, (np.argwhere(label[8:20, 8:20, 8:20]) + 8)[::3])


def test_a_case_without_lesions_has_none(tmp_path, folder):
    data = write_phantoms(tmp_path / "empty", 1, replace(SETTINGS, lesions=0), 0)
    case = prepare_case(data.cases[0], PLAN, folder)
    assert case.lesions == ()
    assert not case.label.any()


def test_voxels_that_nobody_judged_are_neither_lesion_nor_near_one(data, folder):
    source = data.cases[0]
    volume = read_volume(source.label)
    label = np.zeros_like(volume.array)
    label[2:4, 2:4, 2:4], label[20:, 20:, 20:] = 1, 7
    write_volume(replace(volume, array=label), source.label)
    case = prepare_case(source, PLAN.model_copy(update={"ignore": 7}), folder)
    assert np.array_equal(case.label == IGNORED, label == 7)
    assert [len(lesion) for lesion in case.lesions] == [8]
    assert case.distance_mm[20:, 20:, 20:].min() == np.float16(np.sqrt(3) * 17)


TWO_LABELS = PLAN.model_copy(update={"labels": {1: "organ", 2: "tumour"}})


def organ_with_tumour(source, shape=(24, 24, 24), organ=8.0, tumour=2.0):
    """A ball with a small one inside in place of a case's label map."""
    volume = read_volume(source.label)
    volume = replace(volume, array=np.zeros(shape), grid=replace(volume.grid, size_xyz=shape[::-1]))
    away = np.sqrt(((np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) // 2) ** 2).sum(-1))
    label = ((away <= organ).astype(np.uint8) + (away <= tumour)).astype(np.uint8)
    write_volume(replace(volume, array=label), source.label)
    write_volume(replace(volume, array=label.astype(np.float32)), source.images[0])
    return label


def test_a_small_label_inside_a_large_one_is_a_lesion_of_its_own(data, folder):
    label = organ_with_tumour(data.cases[0])
    case = prepare_case(data.cases[0], TWO_LABELS, folder)
    assert case.lesion_labels == (1, 2)
    organ, tumour = case.lesions
    assert np.array_equal(tumour, np.argwhere(label == 2))
    assert np.array_equal(organ, np.argwhere(label == 1)[:: np.count_nonzero(label == 1) // 500])
    as_one = prepare_case(data.cases[1], PLAN, folder)
    assert as_one.lesion_labels == ()


def test_a_rare_label_inside_a_large_one_is_aimed_at(data, folder):
    """An organ of half a million voxels, with a tumour of 123 inside."""
    label = organ_with_tumour(data.cases[0], (128, 128, 128), 49.5, 3.1)
    case = prepare_case(data.cases[0], TWO_LABELS, folder)
    drawn = [draw_patch(case, TWO_LABELS, np.random.default_rng(seed)).label for seed in range(300)]
    assert np.count_nonzero(label == 2) == 123
    assert np.mean([bool((patch == 2).any()) for patch in drawn]) > 0.25
    assert np.mean([bool((patch == 1).any()) for patch in drawn]) > 0.25


def test_what_is_ignored_or_drawn_by_some_reader_counts_for_each_label(read_by_three, folder):
    source = read_by_three.cases[0]
    volume = read_volume(source.label)
    for number, path in enumerate(source.readers.values()):
        label = np.zeros_like(volume.array)
        label[4:8, 4:8, 4:8], label[5, 5, 5 + number % 2], label[20:, 20:, 20:] = 1, 2, 7
        write_volume(replace(volume, array=label), path)
    plan = TWO_LABELS.model_copy(update={"readers": "majority", "ignore": 7})
    case = prepare_case(source, plan, folder)
    assert case.lesion_labels == (1, 2)
    assert [voxels.tolist() for voxels in case.lesions][1] == [[5, 5, 5], [5, 5, 6]]
    assert len(case.lesions[0]) == 64


def test_an_empty_case_of_several_labels_has_no_lesions(tmp_path, folder):
    data = write_phantoms(tmp_path / "empty", 1, replace(SETTINGS, lesions=0), 0)
    case = prepare_case(data.cases[0], TWO_LABELS, folder)
    assert (case.lesions, case.lesion_labels) == ((), ())


def test_lesions_of_several_labels_that_an_earlier_version_prepared_are_made_again(data):
    case = data.cases[0]
    assert preparation_key(case, PLAN) == naive_key(case, PLAN)
    assert preparation_key(case, TWO_LABELS) != naive_key(case, TWO_LABELS)


def naive_key(case, plan):
    """The key of a case in which every label was drawn, as it was when the lesions of all labels were one's."""
    settings = {
        "version": 6,
        "channels": plan.channels,
        "label_values": plan.label_values,
        "ignore": plan.ignore,
        "spacing_zyx_mm": plan.spacing_zyx_mm,
        "normalisation": [how.model_dump() for how in plan.normalisation],
    }
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    files = (*case.images, case.label)
    digests = (hashlib.sha256(hashlib.sha256(path.read_bytes()).digest()) for path in files)
    total.update(" ".join(each.hexdigest() for each in digests).encode())
    return total.hexdigest()[:32]


def with_loss(plan, name):
    return plan.model_copy(update={"loss": LossSettings(name=name)})


def test_the_nearest_lesion_is_prepared_for_a_loss_that_counts_lesions(data, folder):
    source = data.cases[0]
    label = np.zeros((24, 24, 24), np.uint8)
    label[2:5, 3, 3], label[18, 18:20, 20] = 1, 1
    write_volume(replace(read_volume(source.label), array=label), source.label)
    assert prepare_case(source, PLAN, folder).nearest is None
    nearest = prepare_case(source, with_loss(PLAN, "two_way_dice_cross_entropy"), folder).nearest
    first, second = np.zeros_like(label), np.zeros_like(label)
    first[:12], second[12:] = label[:12], label[12:]
    away = [ndimage.distance_transform_edt(each == 0) for each in (first, second)]
    apart = away[0] != away[1]
    assert np.array_equal(nearest[apart], np.where(away[0] < away[1], 1, 2)[apart])
    assert set(np.unique(nearest)) == {1, 2}


def test_other_losses_share_what_is_prepared(data):
    case = data.cases[0]
    keys = [preparation_key(case, with_loss(PLAN, name)) for name in ("dice_cross_entropy", "tversky")]
    counting = [
        preparation_key(case, with_loss(PLAN, name))
        for name in ("blob_dice_cross_entropy", "component_tversky")
    ]
    assert keys[0] == keys[1] != counting[0] == counting[1]


def test_cases_are_a_sequence_opened_on_demand(data, folder):
    cases = prepare_cases(data.cases, PLAN, folder)
    assert len(cases) == 2
    assert [case.name for case in cases] == [case.name for case in data.cases]
    assert cases[-1].name == data.cases[1].name
    assert [case.name for case in cases[:1]] == [data.cases[0].name]
    with pytest.raises(IndexError):
        _ = cases[2]


def test_folds_begin_at_other_cases_and_each_gets_its_cases_in_their_order(tmp_path, folder, monkeypatch):
    data = write_phantoms(tmp_path / "ten", 10, SETTINGS, 0)
    read, begun = Case.read_images, []
    monkeypatch.setattr(Case, "read_images", lambda case: begun.append(case.name) or read(case))
    firsts = set()
    for left_out in range(0, 10, 2):
        fold = [*data.cases[:left_out], *data.cases[left_out + 2 :]]
        begun.clear()
        prepared = prepare_cases(fold, PLAN, folder / str(left_out))
        assert [case.name for case in prepared] == [case.name for case in fold]
        firsts.add(begun[0])
    assert len(firsts) > 2


def test_what_is_there_is_not_prepared_again(data, folder, readings):
    first = prepare_cases(data.cases, PLAN, folder)
    before = len(readings)
    again = prepare_cases(data.cases, PLAN, folder)
    assert len(readings) == before == 2
    assert all(same(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"patch_zyx": (8, 8, 8)},
        {"labels": {1: "another name"}},
        {"batch": 3},
        {"reasons": {"batch": "because"}},
    ],
)
def test_parts_of_the_plan_that_preparation_does_not_use_change_nothing(data, folder, readings, change):
    prepare_case(data.cases[0], PLAN, folder)
    before = len(readings)
    prepare_case(data.cases[0], PLAN.model_copy(update=change), folder)
    assert len(readings) == before


@pytest.mark.parametrize(
    "change",
    [
        {"spacing_zyx_mm": (2.0, 1.0, 1.0)},
        {"normalisation": (Normalisation(kind="window", low=0, high=100),)},
        {"labels": {1: "lesion", 2: "other"}},
    ],
)
def test_a_changed_plan_is_prepared_again(data, folder, change):
    before = prepare_case(data.cases[0], PLAN, folder)
    after = prepare_case(data.cases[0], PLAN.model_copy(update=change), folder)
    assert len(entries(folder, data.cases[0])) == 2
    assert same(before, prepare_case(data.cases[0], PLAN, folder))
    assert ("labels" in change) == same(before, after)


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_changed_file_is_never_served_stale(data, folder, which):
    source = data.cases[0]
    before = prepare_case(source, PLAN, folder)
    path = source.images[0] if which == "image" else source.label
    stamp = path.stat()
    volume = read_volume(path)
    write_volume(replace(volume, array=np.flip(volume.array, 2)), path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the clock must not be what tells
    assert not same(before, prepare_case(source, PLAN, folder))


def test_a_changed_data_file_behind_the_same_header_is_never_served_stale(data, folder):
    source = data.cases[0]
    volume = read_volume(source.images[0])
    path = source.images[0].with_name("detached.mhd")
    source = replace(source, images=(path,))
    write_volume(volume, path)
    header, before = path.read_bytes(), prepare_case(source, PLAN, folder)
    write_volume(replace(volume, array=volume.array[::-1].copy()), path)
    path.write_bytes(header)
    assert not same(before, prepare_case(source, PLAN, folder))


def test_the_order_of_the_channels_counts(data, folder):
    plan = PLAN.model_copy(update={"channels": ("a", "b"), "normalisation": PLAN.normalisation * 2})
    one, other = data.cases[0].images[0], data.cases[1].images[0]
    before = prepare_case(replace(data.cases[0], images=(one, other)), plan, folder)
    after = prepare_case(replace(data.cases[0], images=(other, one)), plan, folder)
    assert np.array_equal(before.image, after.image[::-1])


def test_other_code_does_not_take_the_cases_of_older_code(data, folder, readings, monkeypatch):
    prepare_case(data.cases[0], PLAN, folder)
    before = len(readings)
    monkeypatch.setattr(module, "PREPARATION_VERSION", module.PREPARATION_VERSION + 1)
    prepare_case(data.cases[0], PLAN, folder)
    assert len(readings) == before + 1


def test_a_file_that_changes_while_it_is_read_is_an_error(data, folder, monkeypatch):
    source = data.cases[0]

    def read(case):
        volume = read_volume(case.label)
        write_volume(replace(volume, array=np.zeros_like(volume.array)), case.label)
        return volume

    monkeypatch.setattr(Case, "read_label", read)
    with pytest.raises(DataError, match="changed while they were read"):
        prepare_case(source, PLAN, folder)
    assert entries(folder, source) == set()


def test_entries_do_not_pile_up(data, folder):
    source, made = data.cases[0], []
    for step in range(4):
        plan = PLAN.model_copy(update={"spacing_zyx_mm": (1.0 + step, 1.0, 1.0)})
        prepare_case(source, plan, folder)
        (new,) = entries(folder, source) - set(made)
        made.append(new)
        os.utime(folder / new, (step, step))
    assert entries(folder, source) == set(made[-2:])
    assert len(entries(folder, source)) == ENTRIES_PER_CASE


def at_spacings(count: int) -> list[Plan]:
    """Plans under which a case is prepared in different ways."""
    return [PLAN.model_copy(update={"spacing_zyx_mm": (2.0 + z, 2.0, 2.0)}) for z in range(count)]


def nobody_used(folder: Path, monkeypatch) -> None:
    """Have all that lies there be unused for long, and the next opened case due to be marked."""
    for path in folder.glob("*.safetensors"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(module, "MARKED_EVERY_S", 0)


def test_what_another_run_used_within_a_day_stays(data, folder, monkeypatch):
    source, plans = data.cases[0], at_spacings(4)
    cases = [prepare_cases([source], plan, folder) for plan in plans[:3]]
    nobody_used(folder, monkeypatch)
    cases[0][0]  # a run that goes on
    prepare_case(source, plans[3], folder)
    assert cases[0][0].image.size
    assert len(entries(folder, source)) == 2


def test_a_run_that_trains_keeps_the_cases_that_it_validates_on(data, folder, monkeypatch):
    plans = at_spacings(4)
    both = prepare_cases(data.cases, plans[0], folder)
    training, validation = both[:1], both[1:]
    for plan in plans[1:3]:
        prepare_cases(data.cases, plan, folder)
    nobody_used(folder, monkeypatch)
    training[0]
    prepare_cases(data.cases, plans[3], folder)
    assert validation[0].image.size


def test_old_unfinished_files_are_removed_and_young_ones_left_to_their_owner(data, folder):
    young, old = folder / ".young.tmp.a.safetensors", folder / ".old.tmp.a.safetensors"
    folder.mkdir()
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * ABANDONED_AFTER_S,) * 2)
    prepare_cases(data.cases, PLAN, folder)
    assert young.exists()
    assert not old.exists()


def test_cases_prepared_by_an_earlier_version_are_made_again_and_its_folders_go_after_a_day(data, folder):
    before = [folder / data.cases[0].name / key for key in ("old", "young")]
    for home, age in zip(before, (2 * UNUSED_AFTER_S, 0), strict=True):
        home.mkdir(parents=True)
        (home / "image.npy").touch()
        os.utime(home, (time.time() - age,) * 2)
    prepare_cases(data.cases, PLAN, folder)
    assert [home.exists() for home in before] == [False, True]


def test_a_case_is_one_file_that_safetensors_reads(data, folder):
    case = prepare_case(data.cases[0], PLAN, folder)
    (path,) = folder.glob("*.safetensors")
    read = load_file(path)
    assert {name: array.dtype.name for name, array in read.items()} == {
        "image": "float32",
        "label": "uint8",
        "distance": "float16",
        "lesions": "int32",
    }
    assert all(np.array_equal(read[name.removesuffix("_mm")], getattr(case, name)) for name in ARRAYS)


@pytest.mark.parametrize("name", ["x" * 240, "a.b case", "Ünï" * 60])
def test_any_name_of_a_case_can_be_kept(data, folder, name):
    source = replace(data.cases[0], name=name)
    assert prepare_case(source, PLAN, folder).name == name
    assert len(list(folder.glob("*.safetensors"))) == 1


@pytest.mark.parametrize("damage", ["cut", "cut to its header", "empty", "other"])
def test_a_damaged_entry_is_made_again(data, folder, damage):
    before = prepare_case(data.cases[0], PLAN, folder)
    kept = {array: np.array(getattr(before, array)) for array in ARRAYS}
    del before
    (entry,) = folder.glob("*.safetensors")
    content = entry.read_bytes()
    entry.unlink()
    left = {
        "cut": content[:-7],
        "cut to its header": content[:100],
        "empty": b"",
        "other": b"no such file" * 9,
    }
    entry.write_bytes(left[damage])
    after = prepare_case(data.cases[0], PLAN, folder)
    assert all(np.array_equal(kept[array], getattr(after, array)) for array in ARRAYS)


def test_a_case_removed_in_mid_training_is_named(data, folder):
    cases = prepare_cases(data.cases, PLAN, folder)
    (removed,) = entries(folder, data.cases[1])
    (folder / removed).unlink()
    assert cases[0].name == data.cases[0].name
    with pytest.raises(DataError, match=f"{data.cases[1].name}.*gone or damaged"):
        _ = cases[1]


@pytest.mark.parametrize("error", [DataError("bad"), KeyboardInterrupt()])
def test_nothing_half_written_stays_after_an_error_or_ctrl_c(data, folder, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(module, "distance_to_foreground", fail)
    with pytest.raises(type(error)):
        prepare_case(data.cases[0], PLAN, folder)
    assert list(folder.rglob("*")) == []


def test_a_disk_that_cannot_be_written_to_is_one_line(data, folder):
    folder.write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written .*; check folder and disk"):
        prepare_case(data.cases[0], PLAN, folder)


PROCESS = """
import sys, time
from pathlib import Path
from focalis.dataset import open_dataset
from focalis.planning import Plan
from focalis.training import prepare_cases
from focalis.training import prepared as module
from focalis.training import prepared_folder
from focalis.training.prepared import preparation_key

root, folder, plan, how = sys.argv[1:]
plan = Plan.model_validate_json(plan)
cases = open_dataset(root).cases
measure = module.distance_to_foreground
def slowly(*given):
    print("measuring", flush=True)
    if how == "wait":
        sys.stdin.readline()
    return measure(*given)
module.distance_to_foreground = slowly
def half(arrays, facts, file):
    pack({"image": arrays["image"][:, :12]}, facts, file)
    file.flush()
    print("half", flush=True)
    sys.stdin.readline()
pack = prepared_folder.pack
if how == "half":
    prepared_folder.pack = half
for case in prepare_cases(cases, plan, Path(folder)):
    print("done", case.name, float(case.image.sum()), flush=True)
"""


def start(data, folder, how):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(data.root), str(folder), PLAN.model_dump_json(), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_two_processes_the_second_takes_the_firsts_result(data, folder):
    with start(data, folder, "wait") as late:
        assert late.stdout.readline() == "measuring\n"  # it found nothing and is at work
        first = prepare_cases(data.cases, PLAN, folder)
        stamps = {path: path.stat().st_ino for path in folder.glob("*.safetensors")}
        said, _ = late.communicate("go\n")
    assert late.returncode == 0
    # The first case it made in vain; the second one lay there by then and was not prepared again.
    assert said.splitlines() == [f"done {case.name} {float(case.image.sum())}" for case in first]
    assert {path: path.stat().st_ino for path in folder.glob("*.safetensors")} == stamps
    made = sorted(path.name.partition(".")[0] for path in folder.glob("*.safetensors"))
    assert made == [case.name for case in data.cases]


def test_a_process_killed_in_the_middle_leaves_nothing_that_is_taken_for_a_case(data, folder):
    with start(data, folder, "half") as process:
        assert [process.stdout.readline() for _ in range(2)] == ["measuring\n", "half\n"]
        process.send_signal(signal.SIGKILL)
    (half,) = folder.glob(".*.tmp.*.safetensors")
    assert half.stat().st_size > 4 * 12 * 24 * 24
    assert list(folder.glob("[!.]*.safetensors")) == []
    cases = prepare_cases(data.cases, PLAN, folder)
    assert np.array_equal(cases[0].image, prepare_image([read_volume(data.cases[0].images[0])], PLAN).array)


MANY = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from focalis.dataset import open_dataset
from focalis.planning import Plan
from focalis.training import prepare_cases
from focalis.training.batches import make_batch
from focalis.workflows.record import peak_memory_gb

root, folder, plan, count, files = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
plan = Plan.model_validate_json(plan)
sources = open_dataset(root).cases
def named(count):
    return [replace(sources[i % len(sources)], name=f"case_{i:04d}") for i in range(count)]
def peak_mb():
    return peak_memory_gb() * 1e3
def draw(cases, steps):
    for step in range(steps):
        make_batch(cases, plan, 0, step)
def resident_mb():
    pages = Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]
    return int(pages) / 1024
few = prepare_cases(named(2 * len(sources)), plan, Path(folder))
draw(few, len(few))
before, held = peak_mb(), resident_mb()
many = prepare_cases(named(int(count)), plan, Path(folder))
draw(many, int(count) // plan.batch)
print(peak_mb() - before, resident_mb() - held)
"""


def growth_mb(data, folder, count, files):
    """How much peak and lasting memory grow from a few cases to many, prepared and drawn from."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            MANY,
            str(data.root),
            str(folder),
            PLAN.model_dump_json(),
            str(count),
            str(files),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak, lasting = (float(word) for word in done.stdout.split())
    return peak, lasting


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_many_cases_take_no_more_files_and_memory_than_a_few(tmp_path, folder):
    settings = PhantomSettings(shape_zyx=(32, 32, 32), foreground_share=0.2, lesions=1)
    data = write_phantoms(tmp_path / "data", 4, settings, 0)
    peak, lasting = growth_mb(data, folder, 100, 48)
    # Of 100 cases the arrays are 25 MB, and the lesions' voxels of all cases would be 8 MB.
    assert peak < 6
    assert lasting < 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_cases_of_128_cubed_keep_memory_flat(tmp_path, folder):
    if shutil.disk_usage(tmp_path).free < 25e9:
        pytest.skip("needs 25 GB of free disk")
    settings = PhantomSettings(shape_zyx=(128, 128, 128), foreground_share=0.02, lesions=3)
    data = write_phantoms(tmp_path / "data", 5, settings, 0)
    try:
        peak, lasting = growth_mb(data, folder, 1000, 256)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # One case is 15 MB on disk; a thousand are 15 GB.
    assert peak < 60
    assert lasting < 30


@pytest.fixture
def read_by_three(tmp_path):
    return with_readers(write_phantoms(tmp_path / "three", 2, replace(SETTINGS, readers=3), 0))


def masks(case: Case) -> list[np.ndarray]:
    return [read_volume(path).array for path in case.readers.values()]


def following(readers: str) -> Plan:
    return PLAN.model_copy(update={"readers": readers})


@pytest.mark.parametrize("readers", ["labels", "majority", "staple", "mean", "random"])
def test_what_a_case_of_several_readers_trains_on(read_by_three, folder, readers):
    source = read_by_three.cases[0]
    drawn = masks(source)
    case = prepare_case(source, following(readers), folder)
    expected = {
        "labels": read_volume(source.label).array,
        "staple": staple(drawn),
    }.get(readers, majority(drawn))
    assert np.array_equal(case.label, expected)
    if readers in ("mean", "random"):
        assert isinstance(case.readers, np.memmap)
        assert np.array_equal(case.readers, np.stack(drawn))
    else:
        assert case.readers is None


@pytest.mark.parametrize("before", ["labels", "majority", "staple", "mean"])
@pytest.mark.parametrize("readers", ["labels", "majority", "staple", "random"])
def test_another_policy_for_readers_does_not_take_what_was_prepared_before(
    read_by_three, folder, tmp_path, before, readers
):
    for source in (read_by_three.cases[0], replace(read_by_three.cases[0], readers={})):
        prepare_case(source, following(before), folder)
        again = prepare_case(source, following(readers), folder)
        anew = prepare_case(source, following(readers), tmp_path / "anew")
        assert same(again, anew)
        assert (again.readers is None) == (anew.readers is None) == (readers != "random")


@pytest.mark.parametrize("readers", ["majority", "staple", "mean", "random"])
def test_no_voxel_that_a_reader_drew_is_far_from_the_lesion(read_by_three, folder, readers):
    source = read_by_three.cases[0]
    union = np.any(masks(source), axis=0)
    assert (union & (majority(masks(source)) == 0)).any()
    case = prepare_case(source, following(readers), folder)
    assert np.abs(case.distance_mm - ndimage.distance_transform_edt(~union)).max() < 0.02
    assert {tuple(voxel) for lesion in case.lesions for voxel in lesion} <= set(
        zip(*np.nonzero(union), strict=True)
    )


def test_a_case_without_readers_trains_on_its_label(read_by_three, folder):
    source = replace(read_by_three.cases[0], readers={})
    case = prepare_case(source, following("mean"), folder)
    assert np.array_equal(case.readers, read_volume(source.label).array[None])
    assert np.array_equal(case.label, read_volume(source.label).array)


def test_readers_on_another_grid_are_refused_by_name(read_by_three, folder):
    source = read_by_three.cases[0]
    path = source.readers["r2"]
    volume = read_volume(path)
    write_volume(replace(volume, grid=replace(volume.grid, origin_xyz_mm=(5.0, 0.0, 0.0))), path)
    with pytest.raises(
        DataError, match=r"_r2\.nii\.gz: the mask of reader r2 is not on the grid of the image: origin"
    ):
        prepare_case(source, following("majority"), folder)
    prepare_case(source, PLAN, folder)


def test_mean_and_random_share_an_entry_and_a_changed_mask_makes_a_new_one(read_by_three, folder):
    source = read_by_three.cases[0]
    prepare_case(source, following("mean"), folder)
    prepare_case(source, following("random"), folder)
    assert len(entries(folder, source)) == 1
    before = entries(folder, source)
    path = source.readers["r2"]
    write_volume(replace(read_volume(path), array=np.zeros_like(read_volume(path).array)), path)
    prepare_case(source, following("random"), folder)
    assert len(entries(folder, source) - before) == 1
