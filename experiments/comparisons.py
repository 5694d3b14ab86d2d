"""Whether two systems differ by more than chance, and how much a protocol flatters: differences on the same rows."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy.stats import binomtest

from experiments.results import Comparison, Difference, Flattery, McNemar
from experiments.scored_run import ScoredRun
from experiments.statistics import MIN_GROUPS, find_group_column, group_matrices
from metrics.intervals import NUM_RESAMPLES, bootstrap_scores, expanded_interval, two_sided_p
from metrics.scores import matrix_scores, seed_means


FLATTERED_SCORES = ("weighted_f1", "macro_f1")


def compare_systems(
    runs_of: dict[str, list[ScoredRun]], label_names: list[str], num_resamples: int = NUM_RESAMPLES
) -> list[Comparison]:
    """
    Every pair of systems under one protocol.

    Args:
        runs_of (`dict[str, list[ScoredRun]]`): By the name of the system, its runs.
        label_names (`list[str]`): The classes.
        num_resamples (`int`): How often groups are drawn.

    Returns:
        In the order of `runs_of`; pairs that share no row of a fold and seed are left out. Below `MIN_GROUPS` groups
        differences have neither interval nor p.

    Raises:
        ValueError: A row has different labels in two runs, or the runs name different columns of groups.
    """
    runs = [run for own in runs_of.values() for run in own]
    check_labels(runs)
    if runs:
        find_group_column(runs)
    pairs_of = defaultdict(list)  # rows of each fold and seed → pairs of systems that share just these
    for pair in combinations(runs_of, 2):
        if shared := shared_rows(*(runs_of[name] for name in pair)):
            pairs_of[frozenset(shared.items())].append(pair)
    compared = {}
    for shared, pairs in pairs_of.items():
        names = list(dict.fromkeys(name for pair in pairs for name in pair))
        systems = {name: select_rows(runs_of[name], dict(shared)) for name in names}
        compared |= _compare_on_same_rows(systems, pairs, len(label_names), num_resamples)
    comparisons = [compared[pair] for pair in combinations(runs_of, 2) if pair in compared]
    correct_by_holm([comparison.mcnemar for comparison in comparisons])
    for name in comparisons[0].differences if comparisons else ():
        correct_by_holm([comparison.differences[name] for comparison in comparisons])
    return comparisons


def check_labels(runs: list[ScoredRun]) -> None:
    """A row has one label, whichever run scored it; otherwise a `ValueError`."""
    label_of = {}
    for run in runs:
        for segment_id, label in zip(run.segment_ids, run.labels):
            if label_of.setdefault(segment_id, label) != label:
                raise ValueError(
                    f"Row {segment_id} has class {label} in the run of {run.system}, {run.protocol}, fold {run.fold}, "
                    f"seed {run.seed}, and class {label_of[segment_id]} in another: the runs are of different datasets."
                )


def shared_rows(first: list[ScoredRun], second: list[ScoredRun]) -> dict[tuple[int | None, int], frozenset[str]]:
    """By fold and seed, the rows that both systems were scored on, where there are any."""
    rows_of = {(run.fold, run.seed): frozenset(run.segment_ids) for run in second}
    shared = {
        (run.fold, run.seed): rows_of[run.fold, run.seed].intersection(run.segment_ids)
        for run in first
        if (run.fold, run.seed) in rows_of
    }
    return {key: rows for key, rows in shared.items() if rows}


def select_rows(runs: list[ScoredRun], rows_of: dict[tuple[int | None, int], frozenset[str]]) -> list[ScoredRun]:
    """The runs of the folds and seeds that are named, on the rows that are."""
    selected = []
    for run in runs:
        rows = rows_of.get((run.fold, run.seed), frozenset())
        kept = np.flatnonzero([segment_id in rows for segment_id in run.segment_ids])
        if len(kept):
            selected.append(
                replace(
                    run,
                    segment_ids=[run.segment_ids[index] for index in kept],
                    groups=None if run.groups is None else [run.groups[index] for index in kept],
                    labels=run.labels[kept],
                    probabilities=run.probabilities[kept],
                )
            )
    return selected


def _compare_on_same_rows(
    systems: dict[str, list[ScoredRun]], pairs: list[tuple[str, str]], num_labels: int, num_resamples: int
) -> dict[tuple[str, str], Comparison]:
    """Pairs of systems whose runs are of the same folds, seeds and rows; not corrected yet."""
    matrices = group_matrices(list(systems.values()), num_labels)  # (G, K, R, C, C)
    draws = bootstrap_scores(matrices, num_resamples=num_resamples) if len(matrices) >= MIN_GROUPS else None
    totals = matrices.sum(axis=0)  # (K, R, C, C)
    scores, macro_f1 = seed_means(totals), matrix_scores(totals)["macro_f1"]
    right = {name: mean_answers_right(runs) for name, runs in systems.items()}
    columns = {name: column for column, name in enumerate(systems)}
    compared = {}
    for pair in pairs:
        first, second = pair
        one, other = columns[first], columns[second]
        compared[pair] = Comparison(
            protocol=systems[first][0].protocol,
            first=first,
            second=second,
            num_rows=len(right[first]),
            seeds=sorted({run.seed for run in systems[first]}),
            seeds_above=int((macro_f1[one] > macro_f1[other]).sum()),
            differences=_differences(scores, draws, one, other, len(matrices)),
            mcnemar=mcnemar(right[first], right[second]),
        )
    return compared


def _differences(
    scores: dict[str, np.ndarray], draws: dict[str, np.ndarray] | None, first: int, second: int, num_groups: int
) -> dict[str, Difference]:
    """Of two columns of `scores` and of their `bootstrap_scores`; intervals and p only with the latter."""
    differences = {}
    for name, values in scores.items():
        difference = Difference(value=float(values[first] - values[second]), low=None, high=None)
        if draws is not None:
            drawn = draws[name][first] - draws[name][second]
            difference.low, difference.high = map(float, expanded_interval(drawn, num_groups))
            difference.p = float(two_sided_p(drawn, num_groups))
        differences[name] = difference
    return differences


def mean_answers_right(runs: list[ScoredRun]) -> dict[str, bool]:
    """By row, whether the mean probabilities of the runs that scored it give its class."""
    sums, label_of = {}, {}
    for run in runs:
        for segment_id, label, probabilities in zip(run.segment_ids, run.labels, run.probabilities):
            sums[segment_id] = sums.get(segment_id, 0) + probabilities
            label_of[segment_id] = label
    return {segment_id: bool(sums[segment_id].argmax() == label) for segment_id, label in label_of.items()}


def mcnemar(first: dict[str, bool], second: dict[str, bool]) -> McNemar:
    """
    The exact test: of the rows that only one gets right, is it either one as often as a coin would have it? It takes
    rows to be independent, which those of one session aren't.

    Args:
        first, second (`dict[str, bool]`): Of the same rows, whether each is right.
    """
    only_first = sum(is_right and not second[row] for row, is_right in first.items())
    only_second = sum(is_right and not first[row] for row, is_right in second.items())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(only_first=only_first, only_second=only_second, p=p, p_holm=p)


def correct_by_holm(tests: list[Difference | McNemar]) -> None:
    """Set `p_holm` of tests that are made together; one without p isn't made."""
    tests = [test for test in tests if test.p is not None]
    for test, p in zip(tests, holm([test.p for test in tests])):
        test.p_holm = float(p)


def holm(p_values: list[float]) -> np.ndarray:
    """
    P-values corrected for their number (Holm 1979): the smallest times `n`, the next times `n - 1`, and so on, none
    below one before it, none above 1. Neither scipy nor scikit-learn has it.

    Returns:
        `np.ndarray` of shape `(n,)`, in the order given.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values)
    corrected = np.empty_like(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return corrected


def measure_flattery(
    paper_runs: list[ScoredRun],
    session_runs: list[ScoredRun],
    label_names: list[str],
    num_resamples: int = NUM_RESAMPLES,
) -> list[Flattery]:
    """
    How much better one system looks under the paper's protocol, in `FLATTERED_SCORES`.

    Args:
        paper_runs (`list[ScoredRun]`): At least one; what they logged of epochs is of the reported rows. A run that
            logged none was scored after its last epoch.
        session_runs (`list[ScoredRun]`): May be none. Seeds needn't be those of the others.
        label_names (`list[str]`): The classes.
        num_resamples (`int`): How often groups are drawn.

    Raises:
        ValueError: A row has different labels in two runs, or the runs name different columns of groups.
    """
    check_labels(paper_runs + session_runs)
    num_labels = len(label_names)
    best = seed_means(group_matrices([paper_runs], num_labels).sum(axis=0)[0])
    flattery = [
        Flattery(
            system=paper_runs[0].system,
            score=name,
            best_epoch=float(best[name]),
            last_epoch=float(np.mean([_last_epoch(run, name, num_labels) for run in paper_runs])),
        )
        for name in FLATTERED_SCORES
    ]
    if not session_runs:
        return flattery
    find_group_column(paper_runs + session_runs)
    session = seed_means(group_matrices([session_runs], num_labels).sum(axis=0)[0])
    paper_rows, session_rows = (
        frozenset(segment_id for run in runs for segment_id in run.segment_ids) for runs in (paper_runs, session_runs)
    )
    rows = paper_rows & session_rows
    differences = {}
    if rows:
        both = [select_rows(runs, {(run.fold, run.seed): rows for run in runs}) for runs in (paper_runs, session_runs)]
        matrices = group_matrices(both, num_labels)
        draws = bootstrap_scores(matrices, num_resamples=num_resamples) if len(matrices) >= MIN_GROUPS else None
        differences = _differences(seed_means(matrices.sum(axis=0)), draws, 0, 1, len(matrices))
    for measured in flattery:
        measured.session = float(session[measured.score])
        measured.num_rows = len(rows)
        measured.difference = differences.get(measured.score)
    return flattery


def _last_epoch(run: ScoredRun, score: str, num_labels: int) -> float:
    """What was logged of a score at the last epoch; of a run that compared no epochs, its score."""
    if run.last_evaluation is not None:
        return run.last_evaluation[f"eval_{score}"]
    return float(matrix_scores(group_matrices([[run]], num_labels).sum(axis=(0, 1, 2)))[score])
