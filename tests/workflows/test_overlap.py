"""Reading, computing and writing side by side, and several cases at once: order, memory, errors and Ctrl-C."""

import threading
import warnings

import pytest

from focalis.volume import Grid, Outline
from focalis.workflows.overlap import SHARE, overlapped

IMAGE_BYTES, RESULT_BYTES = 100, 10
OUTLINE = Outline(Grid((1, 1, 1), (1.0, 1.0, 1.0)), IMAGE_BYTES)


class Stages:
    """Cases are names; what happens is noted, and each stage can be made to do something else."""

    def __init__(self, **instead):
        self.noted, self.instead, self.lock, self.outline = [], instead, threading.Lock(), {}

    def note(self, stage, case):
        with self.lock:
            self.noted.append(f"{stage} {case}")
        self.instead.get(stage, lambda _case: None)(case)

    def admit(self, case, _outlines, _modalities):
        assert threading.current_thread() is threading.main_thread()
        self.note("admit", case)
        return 1000.0

    def read(self, case, admit):
        admit([self.outline.get(case, OUTLINE)], ())
        self.note("read", case)
        return case

    def compute(self, case, read, stopped):
        alone = threading.current_thread() is threading.main_thread()
        assert (stopped is None) == alone
        self.stopped = stopped
        self.note("compute" if alone else "compute beside", case)
        return read

    def write(self, case, _made):
        self.note("write", case)
        return ("row", case)

    def held(self, _made):
        return RESULT_BYTES

    def is_row(self, read):
        return isinstance(read, tuple)

    def refused(self, case, error):
        return ("refused", case, str(error))

    def run(self, cases="abc", room=1e9, began=lambda _place, _case: None, lanes=1):
        return overlapped(cases, self, room, began, lanes)


def test_the_next_case_is_read_and_the_last_one_written_while_one_is_computed():
    read_c, wrote_a = threading.Event(), threading.Event()

    def computing(case):
        if case == "b":
            assert read_c.wait(10)
            assert wrote_a.wait(10)

    stages = Stages(
        compute=computing,
        read=lambda case: case == "c" and read_c.set(),
        write=lambda case: case == "a" and wrote_a.set(),
    )
    assert stages.run() == [("row", "a"), ("row", "b"), ("row", "c")]


@pytest.mark.parametrize(
    ("room", "ahead"), [(1000 + IMAGE_BYTES, True), (1000 + IMAGE_BYTES - 1, False), (0, False)]
)
def test_nothing_is_read_ahead_that_the_memory_does_not_hold(room, ahead):
    read = threading.Event()
    seen = []
    stages = Stages(
        read=lambda case: case == "b" and read.set(),
        compute=lambda case: case == "a" and seen.append(read.wait(10 if ahead else 0.1)),
    )
    assert stages.run("ab", room) == [("row", "a"), ("row", "b")]
    assert seen == [ahead]


def test_a_result_is_written_first_where_it_does_not_fit_beside_the_next_case():
    for room, together in ((1000 + RESULT_BYTES, True), (1000 + RESULT_BYTES - 1, False)):
        computing = threading.Event()
        seen = []
        stages = Stages(
            compute=lambda case, computing=computing: case == "b" and computing.set(),
            write=lambda case, seen=seen, computing=computing, together=together: (
                case == "a" and seen.append(computing.wait(10 if together else 0.1))
            ),
        )
        stages.run("ab", room)
        assert seen == [together]


@pytest.mark.parametrize("stage", ["admit", "read", "compute", "write"])
def test_an_error_of_any_stage_refuses_that_case_alone(stage):
    def fail(case):
        if case == "b":
            raise ValueError("no")

    assert Stages(**{stage: fail}).run() == [("row", "a"), ("refused", "b", "no"), ("row", "c")]


def test_warnings_come_case_by_case():
    def warned(stage):
        return lambda case: warnings.warn(f"{case} {stage}", UserWarning, stacklevel=2)

    stages = Stages(**{stage: warned(stage) for stage in ("read", "compute", "write")})
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        before = warnings.showwarning
        stages.run()
        assert warnings.showwarning is before
    said = [str(each.message) for each in heard]
    assert said == [f"{case} {stage}" for case in "abc" for stage in ("read", "compute", "write")]


@pytest.mark.parametrize("where", ["began", "compute"])
def test_ctrl_c_leaves_the_case_that_is_being_written_whole(where):
    wrote = []

    def stop(case):
        if case == "b":
            raise KeyboardInterrupt

    stages = Stages(**{where: stop, "write": wrote.append})
    with pytest.raises(KeyboardInterrupt):
        stages.run(began=lambda _place, case: stop(case) if where == "began" else None)
    assert wrote == ["a"]
    assert "compute c" not in stages.noted


def test_ctrl_c_ends_a_reading_that_waits_for_leave():
    def stop(_case):
        raise KeyboardInterrupt

    stages = Stages(admit=stop)
    with pytest.raises(KeyboardInterrupt):
        stages.run()
    assert stages.noted == ["admit a"]


def test_cases_are_computed_at_once_and_their_rows_come_in_order():
    together, read_d = threading.Barrier(2), threading.Event()

    def computing(case):
        if case in "ab":
            together.wait(10)
        if case == "a":
            assert read_d.wait(10)  # while b is done, c runs and d is read

    stages = Stages(
        **{"compute beside": computing, "read": lambda case: case == "d" and read_d.set()},
    )
    assert stages.run("abcd", lanes=2) == [("row", case) for case in "abcd"]


def test_warnings_come_case_by_case_from_cases_computed_at_once():
    wrote_b = threading.Event()

    def computing(case):
        if case == "a":
            assert wrote_b.wait(10)
        warnings.warn(f"{case} compute", UserWarning, stacklevel=2)

    stages = Stages(**{"compute beside": computing, "write": lambda case: case == "b" and wrote_b.set()})
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        stages.run(lanes=2)
    assert [str(each.message) for each in heard] == ["a compute", "b compute", "c compute"]


def test_a_case_is_computed_alone_where_the_memory_does_not_hold_as_many_of_its_size():
    room = 4000.0
    most = SHARE * room / 2
    needs, running = {"a": most, "b": most + 1, "c": most}, []
    stages = Stages(
        **{
            "compute beside": lambda case: running.append(case),
            "compute": lambda case: running.append(case + " alone"),
        },
    )
    stages.admit = lambda case, _outlines, _modalities: needs[case]
    assert stages.run(room=room, lanes=2) == [("row", "a"), ("row", "b"), ("row", "c")]
    assert running == ["a", "b alone", "c"]
    assert [each for each in stages.noted if each in ("write a", "compute b")] == ["write a", "compute b"]


def test_results_of_cases_computed_at_once_are_written_one_at_a_time():
    together, second, met = threading.Barrier(2), threading.Event(), []

    def write(_case):
        if met:
            second.set()
        else:
            met.append(None)
            met[0] = second.wait(0.2)

    Stages(**{"compute beside": lambda _case: together.wait(10), "write": write}).run("ab", lanes=2)
    assert met == [False]
    assert second.is_set()


@pytest.mark.parametrize("last_small_one", ["c", "small c"])
def test_images_that_do_not_fit_beside_what_idle_threads_hold_are_read_when_these_ended(last_small_one):
    """A thread may keep its network between cases: as much as the largest case that was computed beside others."""
    threads, alive = set(), []

    def read(case):
        if case == "large":
            alive.extend(thread for thread in threads if thread.is_alive())

    stages = Stages(**{"compute beside": lambda _case: threads.add(threading.current_thread()), "read": read})
    needs = {"a": 350.0, "b": 350.0, "c": 350.0, "small c": 1.0, "large": 900.0}
    stages.admit = lambda case, _outlines, _modalities: needs[case]
    stages.outline = {"large": Outline(OUTLINE.grid, 800)}
    cases = ["a", "b", last_small_one, "large"]
    assert stages.run(cases, room=1000.0, lanes=2) == [("row", case) for case in cases]
    assert threads
    assert not alive


def test_images_that_fit_beside_the_threads_are_read_while_these_compute():
    read_large = threading.Event()
    stages = Stages(
        **{
            "compute beside": lambda _case: read_large.wait(10) or pytest.fail("the next case was not read"),
            "read": lambda case: case == "large" and read_large.set(),
        }
    )
    stages.admit = lambda case, _outlines, _modalities: 900.0 if case == "large" else 350.0
    stages.outline = {"large": Outline(OUTLINE.grid, 300)}
    cases = ["a", "b", "large"]
    assert stages.run(cases, room=1000.0, lanes=2) == [("row", case) for case in cases]


def test_what_is_told_when_a_case_begins_is_how_many_are_finished():
    begun_c, told = threading.Event(), []

    def began(finished, case):
        told.append((finished, case))
        if case == "c":
            begun_c.set()

    Stages(**{"compute beside": lambda _case: begun_c.wait(10)}).run("abcd", began=began, lanes=2)
    assert told[:3] == [(0, "a"), (0, "b"), (0, "c")]
    assert told[3] in [(1, "d"), (2, "d")]


@pytest.mark.parametrize("stage", ["admit", "read", "compute beside", "write"])
def test_an_error_refuses_one_of_the_cases_computed_at_once(stage):
    def fail(case):
        if case == "b":
            raise ValueError("no")

    assert Stages(**{stage: fail}).run(lanes=2) == [("row", "a"), ("refused", "b", "no"), ("row", "c")]


def test_ctrl_c_tells_the_cases_computed_at_once_to_stop_and_writes_none_of_them():
    began_both = threading.Barrier(3)

    def computing(_case):
        began_both.wait(10)
        assert stages.stopped.wait(10)
        raise ValueError("stopped")

    def stop(_place, case):
        if case == "c":
            began_both.wait(10)
            raise KeyboardInterrupt

    stages = Stages(**{"compute beside": computing})
    with pytest.raises(KeyboardInterrupt):
        stages.run(began=stop, lanes=2)
    assert not [each for each in stages.noted if each.startswith("write")]


def test_a_case_without_headers_or_with_nothing_to_compute_goes_through():
    stages = Stages()
    stages.read = lambda case, admit: ("kept", case) if case != "b" else (admit([], ()), case)[1]
    assert stages.run() == [("kept", "a"), ("row", "b"), ("kept", "c")]
    assert stages.run("") == []
