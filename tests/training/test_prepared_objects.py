"""Prepared cases in an object store: what is read is what was made, and what is half there is not there."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import buckets
import numpy as np
import obstore
import pytest
import torch
from buckets import SECRET
from obstore.exceptions import AlreadyExistsError
from safetensors.numpy import load_file
from small_plan import small_plan

from focalis.dataset import PhantomSettings, with_readers, write_phantoms
from focalis.errors import DataError, UsageError
from focalis.object_store import open_object_store
from focalis.planning import LossSettings, Plan
from focalis.training import PreparedObjects, prepare_cases
from focalis.training import prepared_objects as module
from focalis.training.batches import make_batch
from focalis.training.prepared import preparation_key
from focalis.workflows.fit import fit

PLAN = small_plan(
    patch_zyx=(16, 16, 16), loss=LossSettings(name="two_way_dice_cross_entropy"), readers="mean"
)
ARRAYS = ("image", "label", "distance_mm", "readers", "nearest")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two cases of two readers, larger than a chunk along one axis."""
    settings = PhantomSettings(shape_zyx=(24, 40, 24), foreground_share=0.01, lesions=2, readers=2)
    return with_readers(write_phantoms(tmp_path_factory.mktemp("data") / "set", 2, settings, 0))


@pytest.fixture(scope="module")
def local(data, tmp_path_factory):
    return prepare_cases(data.cases, PLAN, tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def shared(data, tmp_path_factory):
    """The folder behind a store that holds the cases; not to be changed."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 32)
        prepare_cases(data.cases, PLAN, folder / "known", (folder / "store").as_uri())
    return folder / "store"


@pytest.fixture
def store(shared, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(shared, tmp_path / "store"))


def prepared(data, store: Path, plan: Plan = PLAN):
    return prepare_cases(data.cases, plan, store.parent / "known", store.as_uri())


def shards(store: Path) -> list[Path]:
    return [path for path in store.glob("arrays/*/*/c/**/*") if path.is_file()]


def markers(store: Path) -> list[Path]:
    return sorted(path for path in store.glob("cases/*") if path.is_file())


def test_what_is_read_is_bit_for_bit_what_a_folder_holds(data, local, store):
    for one, other in zip(local, prepared(data, store), strict=True):
        for name in ARRAYS:
            here, there = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
            assert here.dtype == there.dtype
            assert np.array_equal(here, there)
        assert all(np.array_equal(a, b) for a, b in zip(one.lesions, other.lesions, strict=True))


def test_what_is_known_of_the_cases_is_the_same(data, local, store):
    there = prepared(data, store)
    assert there.digests() == local.digests()
    assert there.descriptions() == local.descriptions()


@pytest.mark.parametrize("readers", ["mean", "random"])
def test_batches_are_the_same(data, local, store, readers):
    there, plan = prepared(data, store), PLAN.model_copy(update={"readers": readers})
    for step in range(3):
        one, other = (make_batch(cases, plan, 0, step) for cases in (local, there))
        assert all(
            torch.equal(vars(one)[name], vars(other)[name])
            for name in ("image", "label", "distance_mm", "nearest")
        )


def test_a_box_fetches_its_own_chunks_only(data, store, monkeypatch):
    fetched = []
    get = obstore.get_range_async

    def counted(store, path, *, start, end):
        fetched.append(end - start)
        return get(store, path, start=start, end=end)

    monkeypatch.setattr(obstore, "get_range_async", counted)
    (image,) = prepared(data, store)[0].image
    whole = next(path for path in shards(store) if "image" in path.parts).stat().st_size
    assert image[0:8, 33:40, 0:8].shape == (8, 7, 8)
    assert len(fetched) == 1
    assert fetched[0] < whole / 2


def test_cases_that_are_there_are_not_made_again(data, store, monkeypatch):
    monkeypatch.setattr(PreparedObjects, "add", None)
    assert len(prepared(data, store)) == 2


def test_the_names_of_cases_are_in_no_objects_name(data, store):
    assert not [
        path for path in store.rglob("*") for case in data.cases if case.name in str(path.relative_to(store))
    ]


def test_a_missing_array_is_no_array_of_zeros_and_the_case_is_made_again(data, local, store):
    cases = prepared(data, store)
    for path in shards(store):
        path.unlink()
    with pytest.raises(DataError, match=r"gone or damaged .*; start again, it will be made anew"):
        cases[0].read()
    assert np.array_equal(prepared(data, store)[0].image, local[0].image)


def test_damaged_bytes_are_an_error_and_the_case_is_made_again(data, local, store):
    cases = prepared(data, store)
    for path in shards(store):
        path.write_bytes(path.read_bytes()[:-9] + b"otherwise")
    with pytest.raises(DataError, match="gone or damaged"):
        cases[0].read()
    assert np.array_equal(prepared(data, store)[0].image, local[0].image)


@pytest.mark.parametrize("size", [0, 5, 200])
def test_a_shard_that_is_cut_short_is_no_array_of_zeros(data, local, store, size):
    cases = prepared(data, store)
    for path in shards(store):
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="gone or damaged"):
        cases[0].read()
    assert np.array_equal(prepared(data, store)[0].image, local[0].image)


def test_bytes_that_do_not_decompress_are_damage(data, store):
    cases = prepared(data, store)
    for path in shards(store):
        content = path.read_bytes()
        path.write_bytes(bytes(16) + content[16:])
    with pytest.raises(DataError, match=r"gone or damaged \(RuntimeError\)"):
        cases[0].read()
    assert len(markers(store)) == 1


@pytest.mark.parametrize("content", [b"", b"cut", b"{" * 300, None], ids=["empty", "cut", "other", "half"])
def test_a_damaged_last_object_is_made_again(data, local, store, content):
    for path in markers(store):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    cases = prepared(data, store)
    for number in range(2):
        with pytest.raises(DataError, match="gone or damaged; start again"):
            cases[number]
    assert markers(store) == []
    assert np.array_equal(prepared(data, store)[1].image, local[1].image)


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 3 GiB"), RuntimeError("can't start new thread"), KeyError("bug")],
)
def test_what_says_nothing_of_the_bytes_is_raised_as_it_is_and_removes_nothing(
    data, store, monkeypatch, error
):
    async def fails(*_args, **_options):
        raise error

    case, before = prepared(data, store)[0], markers(store)
    with monkeypatch.context() as patch:
        patch.setattr(obstore, "get_async", fails)
        patch.setattr(obstore, "get_range_async", fails)
        with pytest.raises(type(error)):
            case.read()
    assert markers(store) == before
    assert case.read().image.size


def test_a_case_that_another_run_has_made_again_meanwhile_stays(data, local, store):
    old = prepared(data, store)[0]
    for path in shards(store):
        path.unlink()
    for path in markers(store):
        path.unlink()
    new = prepared(data, store)
    with pytest.raises(DataError, match="gone or damaged"):
        old.read()
    assert np.array_equal(new[0].image, local[0].image)


def test_a_stored_array_is_not_compared_by_mistake(data, store):
    label = prepared(data, store)[0].label
    for wrong in (lambda: label == 1, lambda: label != 1, lambda: label > 0):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize(
    "answer", [ConnectionError("lost"), KeyboardInterrupt(), AlreadyExistsError("twice")]
)
def test_a_case_whose_writing_ended_without_an_answer_is_whole(data, local, tmp_path, monkeypatch, answer):
    opened = module.open_object_store

    class Lost:
        """A store whose put arrives, but not its answer."""

        def __init__(self, address):
            self._store = opened(address)

        def __getattr__(self, name):
            return getattr(self._store, name)

        def put(self, *given, **options):
            self._store.put(*given, **options)
            raise answer

    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(module, "open_object_store", Lost)
        patch.setattr(
            module, "_write", lambda store, *given, write=module._write: write(store._store, *given)
        )
        with suppress(DataError, KeyboardInterrupt):
            prepared(data, store)
    assert markers(store)
    assert np.array_equal(prepared(data, store)[0].image, local[0].image)


def test_a_case_whose_last_object_is_missing_is_not_there(data, tmp_path, monkeypatch):
    def stop(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "pack", stop)
        with pytest.raises(KeyboardInterrupt):
            prepared(data, tmp_path / "store")
    assert not shards(tmp_path / "store")
    killed = Path(shutil.copytree(tmp_path / "store", tmp_path / "killed"))
    (killed / "arrays" / "half").mkdir(parents=True)
    assert len(prepared(data, killed)) == 2
    assert len(list((killed / "cases").iterdir())) == 2


def test_of_two_processes_at_the_same_case_the_first_one_counts(data, store):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    entry = data.cases[0].name, preparation_key(data.cases[0], PLAN)
    PreparedObjects(store.as_uri()).add(entry, {"image": np.zeros((1, 4, 4, 4), np.float32)}, {})
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_what_another_run_uses_stays_however_long_ago_it_was_prepared(data, store):
    first = prepared(data, store)
    for path in store.rglob("*"):
        os.utime(path, (0, 0))
    for z in (2.0, 3.0, 4.0):
        prepared(data, store, PLAN.model_copy(update={"spacing_zyx_mm": (z, 4.0, 4.0)}))
    assert first[1].read().image.size


@pytest.mark.parametrize(
    "address",
    ["s3://AKIA:HUNTER2@bucket/prefix", "s3://bucket/p?secret_access_key=HUNTER2", "s3://bucket/p#HUNTER2"],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address):
    with pytest.raises(
        UsageError, match=r"give s3://bucket/prefix or .*, and credentials by the environment"
    ) as caught:
        PreparedObjects(address)
    assert "HUNTER2" not in str(caught.value)


def as_a_bucket(monkeypatch, endpoint: str) -> None:
    for name, value in buckets.environment(endpoint).items():
        monkeypatch.setenv(name, value)


def test_a_store_that_is_down_is_one_line(monkeypatch):
    as_a_bucket(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(
        DataError, match=r"^s3://bucket/p: cannot be read .*; check the object store"
    ) as caught:
        PreparedObjects("s3://bucket/p")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def bucket(monkeypatch):
    """The process of an S3 server, and the address of a bucket of it."""
    with buckets.server() as (server, endpoint):
        as_a_bucket(monkeypatch, endpoint)
        yield server, "s3://bucket/prepared"


@pytest.mark.slow
def test_a_training_from_a_bucket_gives_the_same_weights_and_writes_no_secret(tmp_path, bucket):
    server, address = bucket
    settings = PhantomSettings(shape_zyx=(24, 24, 24), foreground_share=0.02, lesions=2)
    data = write_phantoms(tmp_path / "set", 6, settings, 0).root
    options = {"steps": 4, "fold": 0, "start": "scratch", "eight_bit": True}
    runs = [tmp_path / "local", tmp_path / "bucket", tmp_path / "again"]
    for run, prepared in zip(runs, (None, address, address), strict=True):
        fit(data, run, prepared=prepared, **options)
    here, *there = [load_file(run / "model.safetensors") for run in runs]
    for weights in there:
        assert all(np.array_equal(here[name], weights[name]) for name in here)
    assert not list((runs[1] / "prepared").glob("*.safetensors"))
    written = b"".join(path.read_bytes() for run in runs for path in run.rglob("*") if path.is_file())
    assert SECRET.encode() not in written
    server.kill()
    server.wait()
    with pytest.raises(DataError, match=f"^{address}: cannot be read"):
        fit(data, tmp_path / "down", prepared=address, **options)
    assert not (tmp_path / "down" / "record.json").exists()


@pytest.mark.slow
def test_two_processes_prepare_the_same_cases_in_a_bucket_at_a_time(data, local, tmp_path, bucket):
    _, address = bucket
    program = (
        "import sys; from pathlib import Path; from focalis.dataset import open_dataset, with_readers\n"
        "from focalis.planning import Plan; from focalis.training import prepare_cases\n"
        "data = with_readers(open_dataset(sys.argv[1])); plan = Plan.model_validate_json(sys.argv[2])\n"
        "prepare_cases(data.cases, plan, Path(sys.argv[3]), sys.argv[4])\n"
    )
    words = [sys.executable, "-c", program, str(data.root), PLAN.model_dump_json()]
    two = [subprocess.Popen([*words, str(tmp_path / name), address]) for name in ("a", "b")]
    assert [each.wait() for each in two] == [0, 0]
    cases = prepare_cases(data.cases, PLAN, tmp_path / "c", address)
    assert all(np.array_equal(one.image, other.image) for one, other in zip(local, cases, strict=True))
    listed = {each["path"] for some in open_object_store(address).list("arrays/") for each in some}
    assert len({path.split("/")[1] for path in listed if path.count("/") > 2}) == len(data.cases)
