"""Whether two systems differ by more than chance, and how much a protocol flatters: differences on the same rows."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations

import numpy as np
from pandas import DataFrame

from experiments.results import PAPER, SESSION, Comparison, Difference, Flattery
from experiments.scored_run import ScoredRun, stack_rows
from experiments.statistics import group_matrices, run_matrix
from metrics.intervals import MIN_GROUPS, NUM_RESAMPLES, bootstrap_scores, expanded_interval, two_sided_p
from metrics.scores import LEADING, SCORES, matrix_scores, seed_means


FLATTERED_SCORES = ("weighted_f1", "macro_f1")


def compare_systems(
    runs_of: dict[str, list[ScoredRun]], label_names: list[str], num_resamples: int = NUM_RESAMPLES
) -> list[Comparison]:
    """Every pair of systems of one protocol that share rows of a fold and seed, in the order of `runs_of`, the runs by
    system. Below `MIN_GROUPS` groups differences have neither interval nor p."""
    if not runs_of:
        return []
    rows = _stack_by_name(runs_of)
    places = rows.groupby(["fold", "seed", "segment_id"], dropna=False).ngroup()
    is_scored = {name: np.bincount(places[rows.system == name], minlength=places.max() + 1) > 0 for name in runs_of}
    pairs_of = defaultdict(list)  # rows of each fold and seed → pairs of systems that share just these
    for first, second in combinations(runs_of, 2):
        shared = is_scored[first] & is_scored[second]
        if shared.any():
            pairs_of[shared.tobytes()].append((first, second))
    compared = {}
    for shared, pairs in pairs_of.items():
        is_named = rows.system.isin({name for pair in pairs for name in pair})
        of_both = rows[is_named & np.frombuffer(shared, dtype=bool)[places]]
        compared |= _compare_on_same_rows(of_both, pairs, len(label_names), num_resamples)
    comparisons = [compared[pair] for pair in combinations(runs_of, 2) if pair in compared]
    for name in SCORES:
        tests = [comparison.differences[name] for comparison in comparisons]
        tests = [test for test in tests if test.p is not None]
        for test, p in zip(tests, holm([test.p for test in tests])):
            test.p_holm = float(p)
    return comparisons


def _stack_by_name(runs_of: dict[str, list[ScoredRun]]) -> DataFrame:
    return stack_rows([replace(run, system=name) for name, runs in runs_of.items() for run in runs])


def _compare_on_same_rows(
    rows: DataFrame, pairs: list[tuple[str, str]], num_labels: int, num_resamples: int
) -> dict[tuple[str, str], Comparison]:
    """Pairs of systems that have the same rows of the same folds and seeds; not corrected yet."""
    matrices = group_matrices(rows, num_labels)  # (G, K, R, C, C)
    draws = bootstrap_scores(matrices, num_resamples=num_resamples) if len(matrices) >= MIN_GROUPS else None
    totals = matrices.sum(axis=0)  # (K, R, C, C)
    scores, leading = seed_means(totals), matrix_scores(totals)[LEADING]
    columns = {name: column for column, name in enumerate(rows.system.unique())}
    compared = {}
    for first, second in pairs:
        one, other = columns[first], columns[second]
        compared[first, second] = Comparison(
            protocol=rows.protocol.iloc[0],
            first=first,
            second=second,
            num_rows=rows.segment_id.nunique(),
            seeds=sorted(rows.seed.unique().tolist()),
            seeds_above=int((leading[one] > leading[other]).sum()),
            differences=_differences(scores, draws, one, other, len(matrices)),
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


def holm(p_values: list[float]) -> np.ndarray:
    """P-values corrected for their number (Holm 1979), in the order given: the smallest times `n`, the next times `n -
    1`, and so on, none below one before it, none above 1. Neither scipy nor scikit-learn has it."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values)
    corrected = np.empty_like(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return corrected


def measure_flattery(
    paper_runs: list[ScoredRun], session_runs: list[ScoredRun], label_names: list[str]
) -> list[Flattery]:
    """How much better one system looks under the paper's protocol, in `FLATTERED_SCORES`: at least one run of it, and
    any of the other protocol, whose seeds may differ."""
    best, session = (
        seed_means(group_matrices(stack_rows(runs), len(label_names)).sum(axis=0)) if runs else None
        for runs in (paper_runs, session_runs)
    )
    flattery = [
        Flattery(
            system=paper_runs[0].system,
            score=name,
            best_epoch=float(best[name][0]),
            last_epoch=float(np.mean([_last_epoch(run, name) for run in paper_runs])),
        )
        for name in FLATTERED_SCORES
    ]
    if not session_runs:
        return flattery
    rows = _stack_by_name({PAPER: paper_runs, SESSION: session_runs})
    rows = rows[rows.groupby("segment_id").system.transform("nunique") == 2]
    differences = {}
    if not rows.empty:
        matrices = group_matrices(rows, len(label_names))
        draws = bootstrap_scores(matrices) if len(matrices) >= MIN_GROUPS else None
        differences = _differences(seed_means(matrices.sum(axis=0)), draws, 0, 1, len(matrices))
    for measured in flattery:
        measured.session = float(session[measured.score][0])
        measured.num_rows = rows.segment_id.nunique()
        measured.difference = differences.get(measured.score)
    return flattery


def _last_epoch(run: ScoredRun, score: str) -> float:
    """What was logged of a score at the last epoch; of a run that compared no epochs, its score."""
    if run.last_evaluation is not None:
        return run.last_evaluation[f"eval_{score}"]
    return float(matrix_scores(run_matrix(run))[score])
