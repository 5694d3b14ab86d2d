"""What experiments give, as `results.json` holds it: every figure of the report, and what it was computed from."""

from dataclasses import asdict, dataclass, field


# Protocols, the fair one first.
SESSION, PAPER = "session", "paper"
MAJORITY = "majority"


@dataclass
class System:
    """
    One row of a table: a fusion of two backbones, trained in one way.

    Args:
        name (`str`): Unique among the systems, as shown.
        fusion (`str`): One of `FUSIONS`, or `"majority"`: the most frequent class of the training rows, always.
        audio_model, text_model (`str`, *optional*): What was given to run_classification.py; none for a backbone that
            the fusion doesn't have.
        variant (`str`, *optional*): Name of the arguments that set it apart from systems with the same fusion and
            backbones.
        is_baseline (`bool`): Whether others are read against it: the majority class, audio alone, text alone.
    """

    name: str
    fusion: str
    audio_model: str | None = None
    text_model: str | None = None
    variant: str | None = None
    is_baseline: bool = False


@dataclass
class Estimate:
    """
    One score of a system.

    Args:
        value (`float`): Of the rows of all folds together, the mean over the seeds.
        low, high (`float`, *optional*): Ends of its 95 % interval, sessions drawn whole; none for fewer than four.
        mean (`float`): Over the runs, one for each fold and seed.
        sd (`float`, *optional*): Standard deviation over the runs; none for a single run.
    """

    value: float
    low: float | None
    high: float | None
    mean: float
    sd: float | None


@dataclass
class ClassScores:
    """Scores of one class over all folds, means over the seeds: rows of it, rows predicted, F1 and recall."""

    name: str
    rows: float
    predicted: float
    f1: float
    recall: float


@dataclass
class CalibrationBin:
    """Predictions whose probability is in `(low, high]`: how many, their mean probability, the share that is right."""

    low: float
    high: float
    rows: int
    confidence: float | None
    accuracy: float | None


@dataclass
class Calibration:
    """Expected calibration error of the predicted class (Guo et al. 2017), and the curve it sums up."""

    expected_calibration_error: float
    bins: list[CalibrationBin]


@dataclass
class Cost:
    """Means over the runs: parameters, those of the fusion among them, seconds of training, peak memory in bytes."""

    parameters: float
    fusion_parameters: float
    seconds: float
    peak_memory_bytes: float


@dataclass
class LearningCurve:
    """
    Means over the runs, by epoch.

    Args:
        epochs (`list[float]`): The epochs that anything was logged for.
        training_loss, loss, macro_f1, weighted_f1 (`list[float | None]`): In the course of training; all but the first
            on the rows that epochs are compared on.
        compared_on (`str`): The part of those rows: `"validation"`, or `"test"` where the reported rows themselves
            choose the epoch.
    """

    epochs: list[float]
    training_loss: list[float | None]
    loss: list[float | None]
    macro_f1: list[float | None]
    weighted_f1: list[float | None]
    compared_on: str


@dataclass
class SystemScores:
    """
    One system under one protocol.

    Args:
        system (`str`): Its name.
        protocol (`str`): `"session"` or `"paper"`.
        folds (`list[int]`): Those with a finished run; empty where the protocol has none.
        seeds (`list[int]`): Likewise.
        num_runs (`int`): Finished.
        num_rows (`int`): Rows that are scored, of all folds.
        group_column (`str`, *optional*): The column whose groups the intervals draw whole.
        num_groups (`int`): How many groups, or rows where there is no column.
        estimates (`dict[str, Estimate]`): `macro_f1`, `unweighted_average_recall`, `weighted_f1`, `accuracy`.
        classes (`list[ClassScores]`): One for each class, in their order.
        confusion_matrix (`list[list[float]]`): True classes in rows; counts over all folds, means over the seeds.
        calibration (`Calibration`, *optional*), cost (`Cost`, *optional*), curve (`LearningCurve`, *optional*): None
            for the majority class.
    """

    system: str
    protocol: str
    folds: list[int]
    seeds: list[int]
    num_runs: int
    num_rows: int
    group_column: str | None
    num_groups: int
    estimates: dict[str, Estimate]
    classes: list[ClassScores]
    confusion_matrix: list[list[float]]
    calibration: Calibration | None = None
    cost: Cost | None = None
    curve: LearningCurve | None = None


@dataclass
class Difference:
    """
    A difference of two scores on the same rows.

    Args:
        value (`float`): First minus second, the mean over the seeds.
        low, high (`float`, *optional*): Ends of its 95 % interval, sessions drawn whole.
        p (`float`, *optional*): Two-sided; below .05 where the interval leaves out 0.
        p_holm (`float`, *optional*): Corrected for the number of comparisons of the protocol (Holm 1979).
    """

    value: float
    low: float | None
    high: float | None
    p: float | None = None
    p_holm: float | None = None


@dataclass
class McNemar:
    """Exact McNemar test of the accuracy: rows that only the first or only the second gets right, seeds averaged."""

    only_first: int
    only_second: int
    p: float
    p_holm: float


@dataclass
class Comparison:
    """
    Two systems under one protocol, on the rows of the runs that both have.

    Args:
        protocol, first, second (`str`): Names.
        num_rows (`int`), seeds (`list[int]`): What is compared.
        seeds_above (`int`): Seeds with which the macro F1 of the first is above that of the second.
        differences (`dict[str, Difference]`): By the name of the score, as in `SystemScores.estimates`.
        mcnemar (`McNemar`): Of the accuracy.
    """

    protocol: str
    first: str
    second: str
    num_rows: int
    seeds: list[int]
    seeds_above: int
    differences: dict[str, Difference]
    mcnemar: McNemar


@dataclass
class Flattery:
    """
    How much the paper's protocol flatters one system in one score.

    Args:
        system, score (`str`): Names.
        best_epoch (`float`): As the paper reports: random split, the epoch that is best on the reported rows.
        last_epoch (`float`): The same runs after their last epoch: nothing chosen, speakers still on both sides.
        session (`float`, *optional*): Folds of sessions, epochs chosen inside the training side.
        num_rows (`int`): Rows that both protocols scored.
        difference (`Difference`, *optional*): Best epoch minus session, on those rows.
    """

    system: str
    score: str
    best_epoch: float
    last_epoch: float
    session: float | None = None
    num_rows: int = 0
    difference: Difference | None = None


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
    """
    One cell of the plan.

    Args:
        name (`str`): Its folder, below that of the experiments.
        protocol, system (`str`), fold (`int`, *optional*), seed (`int`): What it is.
        command (`str`): The same again.
        error (`str`, *optional*): Why it isn't finished.
        scores (`dict[str, float]`): Of the reported rows, as in its `all_results.json` without the prefix.
        last_epoch (`dict[str, float]`): Where epochs are compared on the reported rows, the same after the last one.
        seconds (`float`, *optional*): Of its training, the scoring of its epochs included.
        peak_memory_bytes (`int`, *optional*): Of the accelerator if there is one, otherwise of the process.
        parameters, fusion_parameters (`int`, *optional*): Of the model.
    """

    name: str
    protocol: str
    system: str
    fold: int | None
    seed: int
    command: str
    error: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    last_epoch: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    parameters: int | None = None
    fusion_parameters: int | None = None


@dataclass
class Results:
    """
    A plan, all of whose cells were tried.

    Args:
        name, description (`str`): Of the plan.
        dataset (`str`): Name of the dataset.
        label_names (`list[str]`): The classes.
        command (`str`): The same again, all of it.
        plan (`dict`): As read, with what was given on the command line.
        versions (`dict[str, str]`): Of Python and the packages, and the commit of this repository.
        systems (`list[System]`), tables (`list[Table]`), runs (`list[Run]`): In the order of the plan.
        scores (`list[SystemScores]`): For each protocol and system with a finished run.
        comparisons (`list[Comparison]`): Each pair of systems of a protocol, but the majority class.
        flattery (`list[Flattery]`): Where the plan has the paper's protocol.
        attention (`dict[str, str]`): By the name of a system whose fusion has attention, the file of the picture.
    """

    name: str
    description: str
    dataset: str
    label_names: list[str]
    command: str
    plan: dict
    versions: dict[str, str]
    systems: list[System]
    tables: list[Table]
    runs: list[Run]
    scores: list[SystemScores] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    flattery: list[Flattery] = field(default_factory=list)
    attention: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """What JSON can hold."""
        return asdict(self)
