"""Results made up by code: of a plan with all there is, one failed run among it, and of the smallest."""

from itertools import combinations

import numpy as np

from experiments.results import (
    COST,
    MAJORITY,
    PAPER,
    SESSION,
    Calibration,
    CalibrationBin,
    Comparison,
    Difference,
    Estimate,
    Flattery,
    Results,
    Run,
    System,
    SystemScores,
    Table,
    TableRow,
)
from metrics.scores import matrix_scores


LABELS = ["neutral", "happy", "angry", "surprise", "sad", "fear", "disgust"]
ROWS = np.array([10691, 1145, 345, 251, 231, 116, 62])
WAV2VEC, ROBERTA, XLM = "facebook/wav2vec2-large-960h-lv60-self", "klue/roberta-base", "xlm-roberta-base"
PUBLISHED = {"audio": 0.87966, "text": 0.87552, "late_fusion": 0.8882, "early_fusion": 0.89021, "mlp_mixer": 0.8852}
PUBLISHED |= {"stack": 0.89107, "residual": 0.89149, "rsa": 0.89165, "rsa_cfn": 0.89254, "hybrid_fusion": 0.88477}
LONG_NAME = "rsa_cfn · xlm-roberta-base · no label transform"
MARKED = "marked <script>alert(1)</script> & `co` $\\frac$ [y](z) _u_"
NAMES = ("macro_f1", "unweighted_average_recall", "weighted_f1", "accuracy")
FAILED = "CUDA out of memory. Tried to allocate 2.00 GiB\n(torch.OutOfMemoryError) <b>here</b>"


def make_matrix(skill, rng):
    """A confusion matrix of `ROWS` by a system that answers neutral wherever it doesn't know."""
    shares = np.full((7, 7), 0.01)
    shares[:, 0] = 1 - skill
    shares[np.diag_indices(7)] += skill * np.array([1.5, 1, 0.9, 0.8, 0.7, 0.4, 0.2])
    shares[0, 0] += 1.5
    shares /= shares.sum(axis=1, keepdims=True)
    return np.stack([rng.multinomial(number, share) for number, share in zip(ROWS, shares)]).astype(float)


def make_scores(system, protocol, matrix, rng):
    measured = {name: float(values[0]) for name, values in matrix_scores(matrix[None], LABELS).items()}
    estimates = {
        name: Estimate(measured[name], measured[name] - 0.021, measured[name] + 0.024, measured[name] - 0.003, 0.0113)
        for name in NAMES
    }
    classes = [
        {"name": label, "rows": float(ROWS[index]), "predicted": float(matrix[:, index].sum())}
        | {kind: measured[f"{kind}_{label}"] for kind in ("f1", "recall")}
        for index, label in enumerate(LABELS)
    ]
    folds, seeds = ([0, 1, 2, 3, 4] if protocol == SESSION else []), [1, 2]
    scores = SystemScores(
        system.name,
        protocol,
        folds,
        seeds,
        len(folds or [None]) * len(seeds),
        int(ROWS.sum()),
        "session",
        40,
        estimates,
        classes,
        matrix.tolist(),
    )
    if system.fusion == MAJORITY:
        return scores
    edges = np.linspace(0, 1, 11)
    bins = [CalibrationBin(low, high, 0, None, None) for low, high in zip(edges[:3].tolist(), edges[1:4].tolist())]
    bins += [
        CalibrationBin(low, high, int(200 * 2 ** (8 * low)), (low + high) / 2, (low + high) / 2 - 0.06)
        for low, high in zip(edges[3:-1].tolist(), edges[4:].tolist())
    ]
    scores.calibration = Calibration(float(rng.uniform(0.02, 0.12)), bins)
    size = 7e8 if system.fusion in ("rsa_cfn", "hybrid_fusion") else 4.2e8
    scores.cost = dict(zip(COST, (size, size / 4, float(rng.uniform(900, 6000)), size * 16)))
    return scores


def make_comparison(first, second):
    """The larger the difference, the surer; both `SystemScores` under one protocol."""
    differences = {}
    for name in NAMES:
        value = first.estimates[name].value - second.estimates[name].value
        p = float(np.exp(-300 * abs(value)))
        differences[name] = Difference(value, value - 0.019, value + 0.022, p, min(1.0, 45 * p))
    above = 2 if differences["macro_f1"].value > 0 else 0
    return Comparison(first.protocol, first.system, second.system, 12841, [1, 2], above, differences)


def make_runs(systems, protocol, rng):
    runs = []
    for system in systems:
        if system.fusion == MAJORITY:
            continue
        for fold in range(5) if protocol == SESSION else (None,):
            for seed in (1, 2):
                name = f"runs/{protocol}/{system.fusion}_{len(runs)}"
                command = f"run_classification.py --fusion {system.fusion} --seed {seed} --output_dir {name}"
                scores = {score: float(rng.uniform(0.3, 0.9)) for score in NAMES} | {"f1_neutral": float(rng.uniform())}
                run = Run(name, protocol, system.name, fold, seed, command, None, scores)
                run.last_epoch = {"macro_f1": scores["macro_f1"] - 0.02} if protocol == PAPER else {}
                run.seconds, run.peak_memory_bytes = float(rng.uniform(900, 6000)), 15_360_000_000
                run.parameters, run.fusion_parameters = 425_478_812, 12_572
                runs.append(run)
    return runs


def make_results():
    """Two protocols, thirteen systems, of which one has no finished run under the paper's."""
    rng = np.random.default_rng(7)
    systems = [System(MAJORITY, MAJORITY, is_baseline=True)]
    systems += [System("audio", "audio", WAV2VEC, is_baseline=True)]
    systems += [System("text", "text", None, ROBERTA, is_baseline=True)]
    systems += [System(fusion, fusion, WAV2VEC, ROBERTA) for fusion in list(PUBLISHED)[2:]]
    systems += [System(LONG_NAME, "rsa_cfn", WAV2VEC, XLM, "no label transform")]
    systems += [System(MARKED, "stack", WAV2VEC, ROBERTA, "50 % | of <b>it</b>")]
    skills = dict(zip((system.name for system in systems), (0, 0.2, 0.35, *np.linspace(0.45, 0.6, 10))))
    made = Results(
        name="All fusions",
        description="Ten fusions & twelve systems <i>in all</i>.",
        dataset="data/kemdy20",
        label_names=LABELS,
        command="python run_experiments.py recipes/experiments/all_fusions_5fold.json",
        plan={"name": "All fusions", "seeds": [1, 2], "protocols": ["session", "paper"]},
        versions={"python": "3.11.9", "torch": "2.13.0"},
        systems=systems,
        tables=[
            Table("Table 1: fusions", [TableRow(name, value) for name, value in PUBLISHED.items()]),
            Table("Table 2: backbones", [TableRow("rsa_cfn", 0.89254), TableRow(LONG_NAME, 0.89043)]),
        ],
        runs=[],
    )
    for protocol in (SESSION, PAPER):
        made.runs += make_runs(systems, protocol, rng)
        for system in systems:
            skill = skills[system.name] + (0.1 if protocol == PAPER and system.fusion != MAJORITY else 0)
            matrix = make_matrix(skill, rng)
            if system.fusion in (MAJORITY, "audio"):
                matrix[:, :2] = np.stack([matrix.sum(axis=1) - matrix[:, 1], matrix[:, 1]], axis=1)
                matrix[:, 2:] = 0
            if system.fusion == MAJORITY:
                matrix[:, :2] = np.stack([ROWS, 0 * ROWS], axis=1)
            made.scores.append(make_scores(system, protocol, matrix, rng))
        trained = [entry for entry in made.scores if entry.protocol == protocol and entry.system != MAJORITY]
        made.comparisons += [make_comparison(first, second) for first, second in combinations(trained, 2)]
    for name in [system.name for system in systems[1:]]:
        fair, flattering = (
            next(entry for entry in made.scores if (entry.system, entry.protocol) == (name, protocol))
            for protocol in (SESSION, PAPER)
        )
        for score in ("macro_f1", "weighted_f1"):
            best, session = flattering.estimates[score].value, fair.estimates[score].value
            difference = Difference(best - session, best - session - 0.03, best - session + 0.03, 0.001, 0.011)
            made.flattery.append(Flattery(name, score, best, best - 0.02, session, 2568, difference))
    fail(made, MARKED)
    return made


def make_few():
    """The same with six systems, for what takes long."""
    made = make_results()
    kept = {MAJORITY, "audio", "text", "rsa", LONG_NAME, MARKED}
    made.systems = [system for system in made.systems if system.name in kept]
    for table in made.tables:
        table.rows = [row for row in table.rows if row.system in kept]
    made.runs, made.scores, made.flattery = (
        [entry for entry in entries if entry.system in kept] for entries in (made.runs, made.scores, made.flattery)
    )
    made.comparisons = [pair for pair in made.comparisons if {pair.first, pair.second} <= kept]
    return made


def fail(made, system):
    """Take what a system has under the paper's protocol: both its runs fail."""
    for run in made.runs:
        if run.system == system and run.protocol == PAPER:
            run.error, run.scores, run.last_epoch = FAILED, {}, {}
            run.seconds = run.peak_memory_bytes = run.parameters = run.fusion_parameters = None
    made.scores = [entry for entry in made.scores if (entry.system, entry.protocol) != (system, PAPER)]
    made.comparisons = [
        pair for pair in made.comparisons if pair.protocol != PAPER or system not in (pair.first, pair.second)
    ]
    made.flattery = [entry for entry in made.flattery if entry.system != system]


def make_smallest():
    """One system, one run, no intervals, nothing that may be left out."""
    estimates = {name: Estimate(0.5, None, None, 0.5, None) for name in NAMES}
    classes = [{"name": "calm", "rows": 6.0, "predicted": 4.0, "f1": 0.4, "recall": 0.5}]
    classes += [{"name": "loud", "rows": 4.0, "predicted": 6.0, "f1": 0.6, "recall": 0.5}]
    scores = SystemScores("text", PAPER, [0], [1], 1, 10, None, 10, estimates, classes, [[3, 3], [1, 3]])
    run = Run("runs/text", PAPER, "text", None, 1, "run_classification.py --fusion text", None, {"macro_f1": 0.5})
    return Results(
        name="Small",
        description="",
        dataset="data/demo",
        label_names=["calm", "loud"],
        command="python run_experiments.py small.json",
        plan={},
        versions={},
        systems=[System("text", "text", None, "tiny", is_baseline=True)],
        tables=[],
        runs=[run],
        scores=[scores],
    )
