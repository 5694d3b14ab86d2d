"""What experiments give, as `results.json` holds it: every figure of the report, and what it was computed from."""

from dataclasses import dataclass, field

from metrics.scores import LEADING, SCORES


# Protocols, the fair one first.
SESSION, PAPER = "session", "paper"
MAJORITY = "majority"
ENSEMBLE = "ensemble"
SINGLE_MODALITIES = ("audio", "text")
# Of a run: how many, those of the fusion among them, of its training, and of the accelerator or else of the process.
COST = ("parameters", "fusion_parameters", "seconds", "peak_memory_bytes")


@dataclass
class System:
    """One row of a table: a fusion of two backbones, trained in one way."""

    name: str  # unique among the systems, as shown
    # One of `FUSIONS`; "majority", always the most frequent class of the training rows; or "ensemble", of others.
    fusion: str
    audio_model: str | None = None  # as given to run_classification.py; None where the fusion has no such backbone
    text_model: str | None = None
    variant: str | None = None  # the arguments that tell it from systems with the same fusion and backbones
    is_baseline: bool = False  # others are read against it: the majority class, audio alone, text alone


@dataclass
class Estimate:
    """One score of a system."""

    value: float  # of the rows of all folds together, the mean over the seeds
    low: float | None  # ends of its 95 % interval, sessions drawn whole; None for fewer than four sessions
    high: float | None
    mean: float  # over the runs, one for each fold and seed
    sd: float | None  # over the runs; None for a single one


@dataclass
class CalibrationBin:
    """Predictions whose probability is in `(low, high]`: how many, their mean probability, the share that is right."""

    low: float
    high: float
    rows: int
    confidence: float | None = None
    accuracy: float | None = None


@dataclass
class Calibration:
    """Expected calibration error of the predicted class (Guo et al. 2017), and the curve it sums up."""

    expected_calibration_error: float
    bins: list[CalibrationBin]


@dataclass
class SystemScores:
    """One system under one protocol; the majority class has neither calibration nor cost."""

    system: str
    protocol: str
    folds: list[int]  # with a finished run; empty where the protocol has none
    seeds: list[int]
    num_runs: int  # finished
    num_rows: int  # scored, of all folds
    group_column: str | None  # whose groups the intervals draw whole
    num_groups: int  # how many groups, or rows where there is no column
    estimates: dict[str, Estimate]  # by the names of `SCORES`, and `ccc_NAME` of attributes
    classes: list[dict]  # name, rows of it, rows predicted, F1 and recall over all folds, means over the seeds
    confusion_matrix: list[list[float]]  # true classes in rows; counts over all folds, means over the seeds
    calibration: Calibration | None = None
    cost: dict[str, float] | None = None  # `COST`, means over the runs


@dataclass
class Difference:
    """A difference of two scores on the same rows."""

    value: float  # first minus second, the mean over the seeds
    low: float | None  # ends of its 95 % interval, sessions drawn whole
    high: float | None
    p: float | None = None  # two-sided; below .05 where the interval leaves out 0
    p_holm: float | None = None  # corrected for the number of comparisons of the protocol (Holm 1979)


@dataclass
class Comparison:
    """Two systems under one protocol, on the rows of the runs that both have."""

    protocol: str
    first: str
    second: str
    num_rows: int
    seeds: list[int]
    seeds_above: int  # with so many seeds the macro F1 of the first is above that of the second
    differences: dict[str, Difference]  # by the names of `SCORES`


@dataclass
class Flattery:
    """How much the paper's protocol flatters one system in one score."""

    system: str
    score: str
    best_epoch: float  # as the paper reports: random split, the epoch that is best on the reported rows
    last_epoch: float  # the same runs after their last epoch: nothing chosen, speakers still on both sides
    session: float | None = None  # folds of sessions, epochs chosen inside the training side
    num_rows: int = 0  # that both protocols scored
    difference: Difference | None = None  # best epoch minus session, on those rows


@dataclass
class TableRow:
    """A system, and the weighted F1 that the paper published for it, if any."""

    system: str
    published: float | None = None


@dataclass
class Table:
    title: str
    rows: list[TableRow]


@dataclass
class Run:
    """One cell of the plan."""

    name: str  # its folder, below that of the experiments
    protocol: str
    system: str
    fold: int | None
    seed: int
    command: str  # that runs it again
    error: str | None = None  # why it isn't finished
    scores: dict[str, float] = field(default_factory=dict)  # as in all_results.json, without the prefix
    last_epoch: dict[str, float] = field(default_factory=dict)  # where reported rows choose the epoch
    seconds: float | None = None  # the scoring of its epochs included; this and the others as in `COST`
    peak_memory_bytes: int | None = None
    parameters: int | None = None
    fusion_parameters: int | None = None


@dataclass
class Results:
    """A plan, all of whose cells were tried."""

    name: str
    description: str
    dataset: str
    label_names: list[str]
    command: str  # that runs all of it again
    plan: dict  # as read, with what was given on the command line
    versions: dict[str, str]  # from `made_with`: the date, and what it was computed with
    systems: list[System]  # these, tables and runs in the order of the plan
    tables: list[Table]
    runs: list[Run]
    scores: list[SystemScores] = field(default_factory=list)  # of each protocol and system with a finished run
    comparisons: list[Comparison] = field(default_factory=list)  # each pair of a protocol, without the majority class
    flattery: list[Flattery] = field(default_factory=list)  # where the plan has the paper's protocol
    attention: dict[str, str] = field(default_factory=dict)  # system → the file of its picture

    @property
    def protocols(self) -> list[str]:
        """Those that the plan has, the fair one first."""
        there = {entry.protocol for entry in [*self.runs, *self.scores]}
        return [protocol for protocol in (SESSION, PAPER) if protocol in there]

    @property
    def titles(self) -> dict[str, str]:
        """Of the scores, those of attributes last."""
        told = {name: f"CCC {name.removeprefix('ccc_')}" for entry in self.scores for name in entry.estimates}
        return told | {name: score.short for name, score in SCORES.items()}

    def scores_of(self, protocol: str) -> list[SystemScores]:
        """Of the systems with a finished run, the best in macro F1 first."""
        entries = [entry for entry in self.scores if entry.protocol == protocol]
        return sorted(entries, key=lambda entry: -entry.estimates[LEADING].value)

    def fusion_of(self, name: str) -> str:
        return next(system.fusion for system in self.systems if system.name == name)


def is_fusion(fusion: str) -> bool:
    """Whether it has both modalities."""
    return fusion not in (MAJORITY, ENSEMBLE, *SINGLE_MODALITIES)
