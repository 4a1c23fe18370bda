"""What the folds of one `fit` say together."""

import numpy as np
from small_plan import small_plan

from focalis.dataset import Dataset, Split
from focalis.evaluation import CaseLesions, evaluate_case
from focalis.volume import Grid, Volume
from focalis.workflows import fit_figures
from focalis.workflows.fit_figures import pool_folds
from focalis.workflows.judge import Judgement, caveats_of_cases
from focalis.workflows.run import Task

ANEW = "the training was restarted: no lesion was found"
SEEN = "1 case was seen when the model was made"
SCARCE = "warning: 5 cases train"


def test_pooled_figures_say_what_each_fold_warns_of_once_with_its_numbers(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(fit_figures, "write_judgement", lambda *_, alerts, **__: shown.extend(alerts))
    empty = Volume(np.zeros((4, 4, 4), np.uint8), Grid((4, 4, 4)))
    tasks, judged = [], []
    for fold, own in enumerate([[ANEW], [], [ANEW, SEEN]]):
        task = Task.model_construct(
            home=tmp_path, fold=fold, split=Split((), ()), plan=small_plan(), sharing=1, caveats=()
        )
        scores = evaluate_case(empty, empty, {1: "lesion"}, case=f"c{fold}")
        few = caveats_of_cases(task, scores, 1, 1)
        assert [line.split(":")[0] for line in few[:2]] == [
            "the figures are those of 1 case",
            "the one case holds no lesion",
        ]
        tasks.append(task.model_copy(update={"caveats": (SCARCE,)}))
        caveats = (SCARCE, *caveats_of_cases(tasks[-1], scores, 1, 1), *own)
        judged.append(Judgement(tuple(scores), (CaseLesions(()),), None, caveats=caveats, squeezed=("c",)))

    said = pool_folds(tmp_path, tasks, judged, Dataset(tmp_path, (), ("image",)), {}).caveats

    common, empty_cases, smaller, *own = said
    assert common == SCARCE
    assert empty_cases.startswith("none of the 3 cases holds a lesion")
    assert "for 3 of 3 cases: the figures come from smaller tiles" in smaller
    assert own == [f"folds 0, 2: {ANEW}", f"fold 2: {SEEN}"]
    assert shown == [*said]


def test_folds_of_few_cases_are_judged_by_how_many_they_are_together(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_figures, "write_judgement", lambda *_, **__: None)
    full = Volume(np.ones((4, 4, 4), np.uint8), Grid((4, 4, 4)))
    task = Task.model_construct(
        home=tmp_path, fold=0, split=Split((), ()), plan=small_plan(), sharing=1, caveats=()
    )
    rows = [tuple(evaluate_case(full, full, {1: "lesion"}, case=name)) for name in "abc"]
    judged = [
        Judgement(each, (CaseLesions(()),), None, caveats=tuple(caveats_of_cases(task, each, 0, 1)))
        for each in rows
    ]
    said = [
        pool_folds(tmp_path, [task] * count, judged[:count], Dataset(tmp_path, (), ("image",)), {}).caveats
        for count in (2, 3)
    ]
    assert said == [("the figures are those of 2 cases: too few to judge a model by",), ()]
