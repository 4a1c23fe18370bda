"""The choice of the operating point: threshold, minimum size, minimum confidence."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, special, stats

from focalis.errors import UsageError
from focalis.evaluation import Aim, choose, cut, point_choice, voxel_scores
from focalis.evaluation.point_choice import CONFIDENCES, THRESHOLDS
from focalis.lesions import label_components, match_lesions, report_lesions, temper


def random_case(seed: int, dtype: type = np.float32) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.random((8, 12, 14)), 1) > 0.56
    noise = ndimage.gaussian_filter(rng.random(truth.shape), 0.8)
    return np.clip(0.35 * truth + 2.2 * (noise - 0.3), 0, 1).astype(dtype), truth


def cuts(cases, voxel_mm3=2.0):
    return [cut(f"c{i}", truth, probability, voxel_mm3) for i, (probability, truth) in enumerate(cases)]


def apply(probability, truth, threshold, minimum_mm3, minimum_confidence, voxel_mm3=2.0):
    """What comes of a setting, straight from the mask: hits, false positives, Dice."""
    mask = probability >= probability.dtype.type(threshold)
    components, count = label_components(mask)
    for number in range(1, count + 1):
        inside = components == number
        if inside.sum() * voxel_mm3 < minimum_mm3 or probability[inside].max() < minimum_confidence:
            mask[inside] = False
    matching = match_lesions(truth, mask)
    return len(matching.pairs), len(matching.unmatched_predicted), voxel_scores(truth, mask).dice


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_curve_is_the_mean_dice_of_each_threshold(dtype: type) -> None:
    cases = [random_case(seed, dtype) for seed in range(4)]
    for threshold, dice in choose(cuts(cases)).curve:
        naive = np.mean([voxel_scores(t, p >= dtype(threshold)).dice for p, t in cases])
        assert dice == pytest.approx(naive, rel=1e-12)


def halo(edge: float, size: int = 8, around: int = 4) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """A lesion in a row of voxels; those beside it have the probability `edge`."""
    truth = np.array([[[True] * size + [False] * around + [False] * 3]])
    return np.array([[[0.9] * size + [edge] * around + [0.01] * 3]]), truth


def test_one_half_where_nothing_is_proven_better() -> None:
    """Perfect from 0.25 to 0.8; and better in one case, worse in the other, by as much."""
    truth = np.array([[[True, True, False, False]]])
    probability = np.array([[[0.82, 0.81, 0.22, 0.1]]])
    chosen = choose(cuts([(probability, truth)] * 3))
    assert (chosen.threshold, chosen.minimum_mm3, chosen.minimum_confidence) == (0.5, 0, 0)
    assert chosen.how == "one half: no threshold is proven better on 3 cases with a lesion of the inner split"
    bright, dark = halo(0.58), (np.array([[[0.9] * 8 + [0.42] * 4 + [0.01] * 3]]), halo(0)[1])
    dark[1][0, 0, 8:12] = True
    assert choose(cuts([bright, dark] * 2)).threshold == 0.5


@pytest.mark.parametrize("cases", [1, 2, 3])
def test_few_cases_that_disagree_leave_one_half(cases: int) -> None:
    """A gain in every case, but as different as few cases of a real set are."""
    rows = [halo(0.62, size=8, around=around) for around in (1, 9, 2)[:cases]]
    assert choose(cuts(rows)).threshold == 0.5


@pytest.mark.parametrize(("edge", "least"), [(0.62, 0.65), (0.9, 0.95), (0.993, 0.995)])
def test_cases_that_agree_move_the_threshold(edge: float, least: float) -> None:
    """Up to where a loss that is sure of too much has its outlines, near 1."""
    rows = [halo(edge, around=around) for around in (3, 4, 5, 4, 3)]
    rows = [(np.where(truth, 0.9999, p), truth) for p, truth in rows]
    chosen = choose(cuts(rows))
    assert chosen.threshold == least
    assert chosen.how == "surest gain in mean Dice over one half on 5 cases with a lesion of the inner split"


def test_the_threshold_goes_down_where_that_is_proven() -> None:
    truth = np.array([[[True] * 8 + [False] * 4]])
    rows = [(np.array([[[0.9] * 4 + [faint] * 4 + [0.02] * 4]]), truth) for faint in (0.31, 0.33, 0.32, 0.34)]
    assert choose(cuts(rows)).threshold == 0.3


def test_of_equally_sure_thresholds_the_nearest_to_one_half() -> None:
    rows = [halo(0.62, around=4)] * 4  # perfect from 0.65 to 0.9
    assert choose(cuts(rows)).threshold == 0.65


def test_more_cases_prove_smaller_gains() -> None:
    rows = [halo(0.62, around=around) for around in (1, 9, 2, 0)]
    assert choose(cuts(rows)).threshold == 0.5
    assert choose(cuts(rows * 4)).threshold == 0.65


@pytest.mark.parametrize("empty", [1, 2])
def test_one_or_two_silent_scans_do_not_choose(empty: int) -> None:
    """Their noise is surer than the lesions: at a higher threshold, or with more dropped, they would count 1."""
    truth = np.zeros((5, 5, 20), bool)
    truth[1:4, 1:4, 2:6] = True
    found = np.where(truth, 0.7, 0.0)
    noise = np.zeros(truth.shape)
    noise[1:4, 1:4, 10:14] = 0.8
    chosen = choose(cuts([(found, truth)] * 6 + [(noise, np.zeros_like(truth))] * empty))
    assert (chosen.threshold, chosen.minimum_mm3, chosen.minimum_confidence) == (0.5, 0, 0)
    assert chosen.found == 6


def test_empty_scans_are_silenced_where_that_costs_no_lesion() -> None:
    truth = np.zeros((5, 5, 20), bool)
    truth[1:4, 1:4, 2:6] = True
    found = np.where(truth, 0.999, 0.0)
    noise = np.zeros(truth.shape)
    noise[1:4, 1:4, 10:14] = 0.7
    chosen = choose(cuts([(found, truth)] * 9 + [(noise, np.zeros_like(truth))]))
    assert chosen.threshold == 0.5
    assert 0.7 < chosen.minimum_confidence <= 0.999
    assert chosen.found == 9


def test_many_silent_scans_outweigh_a_lesion() -> None:
    """Ten of sixteen scans are empty and loud; one of six lesions is less sure than they are."""
    truth = np.zeros((5, 5, 20), bool)
    truth[1:4, 1:4, 2:6] = True
    sure, unsure = np.where(truth, 0.95, 0.0), np.where(truth, 0.6, 0.0)
    noise = np.zeros(truth.shape)
    noise[1:4, 1:4, 10:14] = 0.8
    chosen = choose(cuts([(sure, truth)] * 5 + [(unsure, truth)] + [(noise, np.zeros_like(truth))] * 10))
    assert chosen.minimum_confidence > 0.8
    assert chosen.found == 5


def test_a_probability_on_the_threshold_is_foreground() -> None:
    truth = np.ones((1, 1, 1), bool)
    for value in THRESHOLDS:
        (found,) = cut("c", truth, np.full((1, 1, 1), value, np.float32), 1.0, (value,))
        assert found.confidence.size == 1


@pytest.mark.parametrize("rate", [0, 0.5, 1, 2, 4])
def test_a_rate_of_false_positives_is_kept_to_with_the_greatest_sensitivity(rate: float) -> None:
    """Against trying the whole grid of thresholds and confidences on the masks themselves."""
    cases = [random_case(seed) for seed in range(2)]
    chosen = choose(cuts(cases), Aim(rate))
    there = sum(label_components(truth)[1] for _, truth in cases)

    def outcome(threshold, size, confidence):
        rows = [apply(p, t, threshold, size, confidence) for p, t in cases]
        return sum(r[0] for r in rows) / there, sum(r[1] for r in rows) / len(cases)

    sensitivity, false = outcome(chosen.threshold, chosen.minimum_mm3, chosen.minimum_confidence)
    assert false <= rate
    tried = [outcome(t, 0, c) for t, c in product(THRESHOLDS[::3], CONFIDENCES[::5])]
    assert sensitivity >= max(s for s, f in tried if f <= rate) - 0.002
    assert (chosen.minimum_confidence, false, sensitivity) in [
        pytest.approx(point, abs=1e-9) for point in chosen.froc
    ]


def test_small_specks_are_dropped_for_dice_but_no_true_lesion_is_too_small() -> None:
    truth = np.zeros((5, 5, 60), bool)
    truth[1:4, 1:4, 2:6] = truth[1:4, 1:4, 30:34] = True
    probability = np.where(truth, np.float32(0.9), np.float32(0))
    probability[2, 2, 12:29:3] = 0.9  # specks of one voxel, as sure as the lesions
    chosen = choose(cuts([(probability, truth)] * 2))
    assert 2 < chosen.minimum_mm3 <= 72
    assert chosen.minimum_confidence == 0
    truth[2, 2, 50] = True  # now a true lesion is as small as a speck
    assert choose(cuts([(probability, truth)] * 2)).minimum_mm3 == 0


def test_unsure_lesions_are_dropped_for_a_rate_of_false_positives() -> None:
    truth = np.zeros((5, 5, 40), bool)
    truth[1:4, 1:4, 2:6] = True
    probability = np.where(truth, np.float32(0.4), np.float32(0))
    probability[2, 2, 3] = 0.95
    probability[1:4, 1:4, 20:24] = 0.8
    probability[1:4, 1:4, 30:34] = 0.85
    chosen = choose(cuts([(probability, truth)]), Aim(0))
    hits, false, dice = apply(
        probability, truth, chosen.threshold, chosen.minimum_mm3, chosen.minimum_confidence
    )
    assert (hits, false, dice) == (1, 0, 1)
    assert 0.85 < chosen.minimum_confidence <= 0.95


def test_a_temperature_changes_the_numbers_and_not_the_masks() -> None:
    cases = [random_case(seed, np.float64) for seed in range(3)]
    for aim in (Aim(), Aim(1)):
        plain, warm = choose(cuts(cases), aim), choose(cuts(cases), aim, temperature=1.7)
        assert warm.minimum_mm3 == plain.minimum_mm3
        assert warm.threshold == temper(np.asarray(plain.threshold), 1.7) != plain.threshold
        assert warm.minimum_confidence == temper(np.asarray(plain.minimum_confidence), 1.7)
        for probability, truth in cases:
            one = apply(probability, truth, plain.threshold, plain.minimum_mm3, plain.minimum_confidence)
            two = apply(
                temper(probability, 1.7), truth, warm.threshold, warm.minimum_mm3, warm.minimum_confidence
            )
            assert one == two


def test_cases_without_any_foreground() -> None:
    empty = np.zeros((2, 2, 2), bool)
    quiet, loud = np.zeros((2, 2, 2)), np.full((2, 2, 2), 0.42)
    assert choose(cuts([(quiet, empty)])).threshold == 0.5
    chosen = choose(cuts([(np.full((2, 2, 2), 0.97), empty)]))
    assert (chosen.threshold, chosen.minimum_mm3, chosen.minimum_confidence) == (0.5, 0, 0)
    assert (dict(chosen.curve)[0.95], dict(chosen.curve)[0.98]) == (0, 1)
    assert chosen.froc == ()
    assert chosen.how == "not chosen, the default: none of the 1 cases of the inner split holds a lesion"
    strict = choose(cuts([(loud, empty)]), Aim(0))
    assert apply(loud, empty, strict.threshold, strict.minimum_mm3, strict.minimum_confidence)[1] == 0


def test_a_point_that_finds_nothing_is_not_chosen_where_another_finds_a_lesion() -> None:
    """Nothing marked would be best: most cases are empty, and their noise is louder than the lesion is sure."""
    truth = np.zeros((5, 5, 20), bool)
    truth[1:4, 1:4, 2:6] = True
    faint = np.where(truth, 0.3, 0.0)
    faint[1:4, 1:4, 12:16] = 0.3
    noise = np.zeros(truth.shape)
    noise[2, 2, 2:4] = 0.4
    chosen = choose(cuts([(faint, truth), *[(noise, np.zeros_like(truth))] * 6]))
    assert chosen.threshold == 0.3
    assert (chosen.lesions, chosen.found) == (1, 1)
    assert "0.3, the nearest to one half that finds a lesion" in chosen.how


@pytest.mark.parametrize("value", [0.0, 0.03, 1.0])
@pytest.mark.parametrize("aim", [Aim(), Aim(1)])
def test_where_no_threshold_finds_a_lesion_there_is_no_choice(value: float, aim: Aim) -> None:
    truth = np.zeros((8, 8, 8), bool)
    truth[2:4, 2:4, 2:4] = True
    constant = np.full(truth.shape, value)
    chosen = choose(cuts([(constant, truth), (constant, np.zeros_like(truth))]), aim, temperature=3.0)
    assert (chosen.threshold, chosen.minimum_mm3, chosen.minimum_confidence) == (0.5, 0, 0)
    assert chosen.how.startswith(
        "not chosen, the default: no threshold finds one of the 1 lesions in 2 cases"
    )
    assert (chosen.lesions, chosen.found) == (1, 0)


def test_aims_are_read_and_others_refused() -> None:
    assert Aim.parse("dice") == Aim()
    assert Aim.parse("fp-per-scan=0.5") == Aim(0.5)
    for wrong in ("sensitivity", "fp-per-scan", "fp-per-scan=-1", "fp-per-scan=many", "fp-per-scan=nan"):
        with pytest.raises(UsageError, match="aim"):
            Aim.parse(wrong)


def test_wrong_input_is_refused() -> None:
    some = np.zeros((1, 1, 2))
    with pytest.raises(UsageError, match="at least one case"):
        choose([])
    with pytest.raises(UsageError, match="does not fit"):
        cut("c", np.zeros((2, 1, 1), bool), some, 1.0)


def scan_with_lines(seed: int, each: int) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Cubes that are lesions and lines that are none, as probable and as large as each other."""
    rng = np.random.default_rng(seed)
    probability, truth = np.full((6, 20, 60), 0.05, np.float32), np.zeros((6, 20, 60), bool)
    for place in range(each):
        level = rng.uniform(0.6, 0.99)
        probability[1:3, 2:4, 6 * place + 1 : 6 * place + 3] = level
        truth[1:3, 2:4, 6 * place + 1 : 6 * place + 3] = True
        probability[4, 8:16, 6 * place + 1] = rng.uniform(0.6, 0.99)
    return probability, truth


def looked_at(count: int, each: int, spacing_zyx_mm=(1.0, 1.0, 1.0)):
    scans = [scan_with_lines(seed, each) for seed in range(count)]
    return [cut(f"c{i}", t, p, 1.0, spacing_zyx_mm=spacing_zyx_mm) for i, (p, t) in enumerate(scans)]


def test_a_second_look_is_taken_where_shape_tells_what_size_and_confidence_cannot() -> None:
    chosen = choose(looked_at(4, 8), temperature=2.0)

    assert chosen.second_look
    assert "lesion F1 1.000 on patients left out one by one" in chosen.how
    assert (chosen.found, chosen.lesions) == (32, 32)
    probability, truth = scan_with_lines(9, 8)
    slabs = [(slice(None), np.stack([1 - probability, probability]))]
    assert np.array_equal(report_lesions(slabs, truth.shape, chosen, (1.0, 1.0, 1.0)).mask > 0, truth)


@pytest.mark.parametrize(
    ("cases", "aim"),
    [
        (looked_at(2, 8), Aim()),  # 16 of each
        (looked_at(1, 8), Aim()),
        (looked_at(4, 8, None), Aim()),
        (looked_at(4, 8), Aim(1.0)),
    ],
    ids=["few candidates", "one case", "not asked for", "for a rate of false positives"],
)
def test_otherwise_there_is_no_second_look(cases, aim: Aim) -> None:
    assert choose(cases, aim).second_look == ()


def test_a_second_look_is_judged_on_patients_that_it_has_not_seen(monkeypatch) -> None:
    """Two scans of one patient are left out together."""
    seen, fit = [], point_choice.fit_second_look
    monkeypatch.setattr(
        point_choice, "fit_second_look", lambda given, right: seen.append(len(right)) or fit(given, right)
    )
    of = {f"c{number}": f"patient {number // 2}" for number in range(8)}
    assert choose(looked_at(8, 8), patients=of).second_look
    assert seen == [96] * 8 + [128]  # of 16 components in each scan


def test_a_second_look_that_finds_nothing_to_drop_is_not_taken() -> None:
    """Right and wrong candidates that look the same."""
    rows = []
    for seed in range(4):
        probability, truth = scan_with_lines(seed, 8)
        probability[4] = probability[1]
        rows.append(cut(f"c{seed}", truth, probability, 1.0, spacing_zyx_mm=(1.0, 1.0, 1.0)))
    assert choose(rows).second_look == ()


def row_of(lengths: Sequence[int], peaks: Sequence[float]) -> NDArray[np.float64]:
    """Components in a row of voxels, each of a length and with a highest probability."""
    parts = [[peak, *[0.55] * (length - 1), 0.0] for length, peak in zip(lengths, peaks, strict=True)]
    return np.concatenate(parts)[None, None]


def lesions_and_specks(
    lengths: Sequence[int], peaks: Sequence[float], specks: Sequence[int], speck_peaks: Sequence[float]
) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """A lesion in each case, and all specks in the first one, so that no gain by dropping them is proven."""
    cases = []
    for number, (length, peak) in enumerate(zip(lengths, peaks, strict=True)):
        beside = ([], []) if number else (specks, speck_peaks)
        probability = row_of([length, *beside[0]], [peak, *beside[1]])
        truth = np.zeros(probability.shape, bool)
        truth[..., :length] = True
        cases.append((probability, truth))
    return cases


def test_a_new_lesion_is_seldom_below_the_minimum_size() -> None:
    """Specks are as sure as lesions, and some as large as the smallest of six: that is no bound for the next lesion."""
    rng = np.random.default_rng(0)
    below = []
    for _ in range(10):
        lengths = np.exp(rng.normal(np.log(40), 0.5, 6)).astype(int)
        specks = rng.integers(2, lengths.min(), 8)
        point = choose(cuts(lesions_and_specks(lengths, [0.9] * 6, specks, [0.9] * 8)))
        below.append(stats.norm.cdf(np.log(max(point.minimum_mm3 / 2, 1e-9) / 40) / 0.5))
    assert 0 < np.mean(below) <= 0.04  # 0.025, over ten draws


def test_a_new_lesion_is_seldom_less_sure_than_the_minimum_confidence() -> None:
    rng = np.random.default_rng(0)
    below = []
    for _ in range(10):
        odds = rng.normal(7.0, 1.0, 6)
        peaks = special.expit(rng.uniform(0.5, odds.min(), 8))
        point = choose(cuts(lesions_and_specks([6] * 6, special.expit(odds), [6] * 8, peaks)))
        below.append(stats.norm.cdf(special.logit(max(point.minimum_confidence, 1e-9)) - 7.0))
    assert 0 < np.mean(below) <= 0.04  # 0.025, over ten draws


@pytest.mark.parametrize(
    ("peaks", "speck"),
    [([0.99999, 0.999991], 0.9991), ([1 - 1e-8] * 3, 0.9991), ([0.99, 0.9901, 0.9902], 0.975)],
)
def test_few_lesions_that_are_alike_do_not_say_how_sure_the_next_one_is(
    peaks: list[float], speck: float
) -> None:
    """Two that are alike by accident, and three of which the network could not be surer: specks below them stay."""
    point = choose(cuts(lesions_and_specks([6] * len(peaks), peaks, [6] * 8, [speck] * 8)))
    assert point.minimum_confidence <= speck
    many = choose(cuts(lesions_and_specks([6] * 60, [*peaks, *peaks[:1] * 60][:60], [6] * 8, [0.9] * 8)))
    assert many.minimum_confidence > 0.9  # sixty of them do


def test_few_lesions_of_one_size_do_not_say_how_small_the_next_one_is() -> None:
    few, many = (
        choose(cuts(lesions_and_specks([40] * count, [0.9] * count, [12] * 8, [0.9] * 8)))
        for count in (3, 30)
    )
    assert few.minimum_mm3 < 2 * 12 < many.minimum_mm3 <= 2 * 40
