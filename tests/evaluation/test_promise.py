"""Promises: what is understood, what it takes, and that they hold as often as they say."""

import math

import numpy as np
import pytest

from focalis.errors import UsageError
from focalis.evaluation import Promise, keep_promise
from focalis.evaluation.promise import TRIED, cases_needed, p_value
from focalis.lesions import Candidates, OperatingPoint
from focalis.lesions.matching import Overlaps


def at(threshold, case, lesions, found, false):
    """A case's lesions at a threshold: `found` and `false` are confidences; those below the threshold are not there."""
    hits = [(number, sure) for number, sure in enumerate(found) if sure is not None and sure >= threshold]
    wrong = [sure for sure in false if sure >= threshold]
    overlaps = Overlaps(
        truth_voxels=np.full(lesions, 10),
        predicted_voxels=np.full(len(hits) + len(wrong), 10),
        truth=np.array([number for number, _ in hits], dtype=np.int64),
        predicted=np.arange(len(hits)),
        shared=np.full(len(hits), 8),
        iou=np.full(len(hits), 8 / 12),
    )
    confidence = np.array([sure for _, sure in hits] + wrong, dtype=np.float64)
    return Candidates(case, 1.0, overlaps, confidence)


def scan(name, found=(), false=()):
    """A scan whose true lesions have the confidences `found`, None where nothing lies on them."""
    return tuple(at(threshold, name, len(found), found, false) for threshold in TRIED)


def kept(rows, text, temperature=1.0, **options):
    point = OperatingPoint(0.4, minimum_mm3=3.0, temperature=temperature)
    return keep_promise(point, rows, Promise.parse(text), thresholds=TRIED, **options)


def nothing(point):
    """Whether nothing is promised, and the point is as it was."""
    return point == OperatingPoint(0.4, minimum_mm3=3.0, promise=point.promise) and point.promise.startswith(
        "none: "
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("miss<=10%", Promise("miss", 0.1)),
        ("miss <= 2.5 % @ 95 %", Promise("miss", 0.025, 0.95)),
        ("fp-per-scan<=1", Promise("fp-per-scan", 1.0)),
        ("fp-per-scan<=.25@80%", Promise("fp-per-scan", 0.25, 0.8)),
    ],
)
def test_a_promise_is_read_from_text(text, expected):
    assert Promise.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "miss",
            "miss<=10",
            "miss<=0%",
            "miss<=100%",
            "miss<10%",
            "fp-per-scan<=10%",
            "fp-per-scan<=-1",
        ),
        *("fp-per-scan<=0", "miss<=10%@100%", "miss<=10%@0.9", "dice>=0.8", "miss<=1.2.3%"),
    ],
)
def test_what_is_not_a_promise_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="give miss<=10% or fp-per-scan<=1"):
        Promise.parse(text)


@pytest.mark.parametrize(("count", "level"), [(10, 0.1), (29, 0.1), (50, 0.03)])
def test_without_a_loss_the_p_value_is_the_chance_of_seeing_none(count, level):
    assert p_value(count, 0.0, level) == pytest.approx((1 - level) ** count)


def test_a_p_value_bounds_the_chance_of_a_mean_that_low():
    """Of coins of exactly the promised rate, a p-value of at most 5 % comes in at most 5 % of the samples."""
    rng = np.random.default_rng(0)
    for count, level in ((30, 0.1), (100, 0.1), (60, 0.3)):
        drawn = rng.binomial(count, level, 4000)
        small = [hits for hits in range(count + 1) if p_value(count, hits / count, level) <= 0.05]
        assert small
        assert np.isin(drawn, small).mean() <= 0.055


@pytest.mark.parametrize(("level", "doubt", "expected"), [(0.1, 0.05, 29), (0.05, 0.05, 59), (0.1, 0.1, 22)])
def test_the_number_of_cases_needed_is_that_of_the_rule_of_three(level, doubt, expected):
    assert cases_needed(0.0, level, doubt) == expected
    assert p_value(expected, 0.0, level) <= doubt < p_value(expected - 1, 0.0, level)


def test_no_number_of_cases_shows_what_is_not_so():
    assert cases_needed(0.12, 0.1, 0.05) is None
    needed = cases_needed(0.05, 0.1, 0.05)
    assert p_value(needed, 0.05, 0.1) <= 0.05


def test_with_too_few_cases_it_says_how_many_it_takes():
    promised = kept([scan(f"s{i}", [0.9]) for i in range(12)], "miss<=10%")
    assert nothing(promised)
    assert "12 patients with a lesion" in promised.promise
    assert "it takes 29" in promised.promise


def test_with_enough_cases_the_fewest_false_positives_are_taken_that_keep_it():
    """Lesions have 0.8 or more, false ones 0.3 to 0.7: a minimum confidence between them loses nothing."""
    rng = np.random.default_rng(1)
    rows = [scan(f"s{i}", [0.82, 0.97], rng.uniform(0.3, 0.7, 5)) for i in range(40)]
    promised = kept(rows, "miss<=10%")
    assert 0.7 <= promised.minimum_confidence <= 0.82
    assert "and 0 false positives per scan reported" in promised.promise
    assert "at most 10 % of a scan's lesions missed on average, with 90 % confidence" in promised.promise
    assert "40 patients with a lesion of the inner split" in promised.promise
    assert promised.froc[-1][2] == 1
    assert (promised.lesions, promised.found) == (80, 80)


def test_false_positives_are_kept_with_the_most_lesions_found():
    rng = np.random.default_rng(2)
    rows = [scan(f"s{i}", [0.6], rng.uniform(0.3, 0.5, 2)) for i in range(60)] + [
        scan(f"empty{i}", (), [0.9] if i < 3 else ()) for i in range(30)
    ]
    promised = kept(rows, "fp-per-scan<=1")
    assert 0.45 <= max(promised.threshold, promised.minimum_confidence) <= 0.6
    assert "90 patients" in promised.promise
    assert "counts with at most 10" in promised.promise
    assert (promised.lesions, promised.found) == (60, 60)


def test_a_point_by_its_promise_says_what_it_finds_itself():
    """Not what the point before it found, which the aim had chosen: half of the lesions are missed by both."""
    rows = [scan(f"s{i}", [0.9, None]) for i in range(90)]
    point = OperatingPoint(0.4, lesions=180, found=0)
    promised = keep_promise(point, rows, Promise.parse("miss<=70%"), thresholds=TRIED)
    assert (promised.lesions, promised.found) == (180, 90)
    refused = keep_promise(point, rows, Promise.parse("miss<=5%"), thresholds=TRIED)
    assert (refused.lesions, refused.found) == (180, 0)


def test_a_promise_that_only_silence_keeps_is_not_given():
    rows = [scan(f"s{i}", [0.3], [0.6] * 8) for i in range(60)]
    promised = kept(rows, "fp-per-scan<=0.5")
    assert nothing(promised)
    assert "find no lesion" in promised.promise


def test_a_network_that_misses_more_is_told_apart_from_too_few_cases():
    half = [scan(f"s{i}", [0.9 if i % 2 else None]) for i in range(80)]
    assert "misses 50 % in 80 patients" in kept(half, "miss<=10%").promise
    assert "no number" in kept(half, "miss<=10%").promise
    some = [scan(f"s{i}", [None if i % 20 == 0 else 0.9]) for i in range(40)]
    assert "at that rate it takes about" in kept(some, "miss<=10%").promise


def test_scans_of_one_patient_count_once():
    rows = [scan(f"s{i}", [0.9]) for i in range(40)]
    same = {f"s{i}": f"patient{i % 10}" for i in range(40)}
    assert not nothing(kept(rows, "miss<=10%"))
    assert "10 patients" in kept(rows, "miss<=10%", patients=same).promise
    assert nothing(kept(rows, "miss<=10%", patients=same))


def test_scans_without_lesions_say_nothing_of_misses():
    rows = [scan(f"s{i}", [0.9]) for i in range(20)] + [scan(f"e{i}") for i in range(50)]
    assert "20 patients with a lesion" in kept(rows, "miss<=10%").promise
    assert "0 patients with a lesion" in kept(rows[20:], "miss<=10%").promise
    assert nothing(kept([], "fp-per-scan<=1"))


def test_the_point_is_given_in_tempered_probabilities():
    rows = [scan(f"s{i}", [0.9], [0.6]) for i in range(60)]
    plain, cool = kept(rows, "miss<=10%"), kept(rows, "miss<=10%", temperature=2.0)
    odds = plain.minimum_confidence / (1 - plain.minimum_confidence)
    assert cool.minimum_confidence == pytest.approx(math.sqrt(odds) / (1 + math.sqrt(odds)))


def population(rng, count):
    """Scans of an imperfect detector: one to four lesions, some never seen, confidences that overlap false ones'."""
    rows = []
    for number in range(count):
        skill = rng.uniform(0.75, 1.0)
        found = [
            float(rng.beta(6, 2)) if rng.random() < skill * 1.08 else None for _ in range(rng.integers(1, 5))
        ]
        rows.append(scan(f"s{number}", found, rng.beta(2, 4, rng.poisson(1.2))))
    return rows


def on_new_scans(rows, promised, of):
    """What really happens at the promised point."""
    values = []
    for row in rows:
        column = row[TRIED.index(promised.threshold)]
        matching = column.overlaps.match(column.kept(0, promised.minimum_confidence))
        lesions = column.overlaps.truth_voxels.size
        values.append(
            len(matching.unmatched_truth) / lesions if of == "miss" else len(matching.unmatched_predicted)
        )
    return float(np.mean(values))


@pytest.mark.parametrize(("text", "most"), [("miss<=25%", 0.25), ("fp-per-scan<=0.5", 0.5)])
def test_a_promise_holds_as_often_as_it_says(text, most):
    """Repeated draws of the cases that it rests on; 90 % confidence, so at most one promise in ten may fail."""
    rng = np.random.default_rng(3)
    everyone, real = population(rng, 600), dict[tuple[float, float], float]()
    given = failed = 0
    for _ in range(20):
        promised = kept([everyone[i] for i in rng.choice(600, 60, replace=False)], text)
        if not nothing(promised):
            point = promised.threshold, promised.minimum_confidence
            if point not in real:
                real[point] = on_new_scans(everyone, promised, Promise.parse(text).of)
            given += 1
            failed += real[point] > most
    assert given >= 10
    assert failed <= 0.2 * given
