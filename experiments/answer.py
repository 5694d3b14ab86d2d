"""What the numbers say, in plain words: which systems are best, which pairs surely differ, what the protocol adds.
Every sentence is made from the results, so that it can't promise what a table takes back."""

from statistics import mean

from pandas import DataFrame, Series

from experiments.records import from_both_sides, pair_frame, system_frame
from experiments.results import MAJORITY, PAPER, SESSION, SINGLE_MODALITIES, Results
from experiments.sheets import format_difference, format_interval, format_score
from foundation.words import counted
from metrics.scores import LEADING


BEST_NAMED = 3
PAIRS_NAMED = 3
WHERE = {
    SESSION: "On sessions that were not trained on (protocol session",
    PAPER: "On a random split whose reported rows choose the epoch (protocol paper",
}


def answer(results: Results) -> list[str]:
    """One paragraph on the fairest protocol that has scores, and a shorter one on the other."""
    systems = system_frame(results)
    systems = systems[systems.state == "finished"]
    if systems.empty:
        return ["No run has finished, so there is nothing to tell yet."]
    paragraphs = []
    for protocol, scored in systems.groupby("protocol", sort=False):
        pairs = pair_frame(results, protocol)
        sentences = [_best(protocol, scored), *_pairs(pairs, number_named=0 if paragraphs else PAIRS_NAMED)]
        against = [text for modality in SINGLE_MODALITIES if (text := _against(modality, scored, pairs))]
        sentences += [f"Surely better than {'; than '.join(against)}."] if against else []
        paragraphs.append(" ".join([*sentences, *_blind(scored, len(results.label_names))]))
    return [*paragraphs, *_flattery(results)]


def _best(protocol: str, scored: DataFrame) -> str:
    folds, seeds = (set(" ".join(scored[name]).split()) for name in ("folds", "seeds"))
    where = f"{WHERE[protocol]}, {counted(len(folds), 'folds')}" if folds else WHERE[protocol]
    where += f", {counted(len(seeds), 'seeds')})"
    is_majority = scored.fusion == MAJORITY
    ranked = scored[~is_majority].sort_values(LEADING, ascending=False, kind="stable")
    chance = [
        f"always answering the most frequent class has {_value(entry)}" for _, entry in scored[is_majority].iterrows()
    ]
    if ranked.empty:
        return f"{where} nothing but the baseline was scored: {chance[0]}."
    (_, best), *others = ranked.head(BEST_NAMED).iterrows()
    text = (
        f"{where} {best.system} has the highest macro F1, {_value(best)} (unweighted average recall "
        f"{_value(best, 'unweighted_average_recall')})"
    )
    if others:
        text += ", before " + " and ".join(f"{entry.system} {_value(entry)}" for _, entry in others)
    return f"{'; '.join([text, *chance])}."


def _value(entry: Series, name: str = LEADING) -> str:
    return f"{format_score(entry[name])} {format_interval(entry[f'{name}_low'], entry[f'{name}_high'])}".strip()


def _pairs(pairs: DataFrame, number_named: int) -> list[str]:
    """Which fusions surely differ from each other."""
    fusions = pairs[pairs.first_is_fusion & pairs.second_is_fusion]
    if fusions.empty:
        return []
    number = counted(len(fusions), "pairs")
    differing = fusions[fusions.is_significant].sort_values("value", key=lambda v: -v.abs(), kind="stable")
    if differing.empty:
        which = "No pair of fusions differs" if len(fusions) > 1 else "The two fusions don't differ"
        return [f"{which} in macro F1 after Holm's correction ({number}), so their order may be chance."]
    named = [_in_words(pair) for _, pair in differing.head(number_named).iterrows()]
    more = len(differing) - len(named)
    named += [f"{more} more"] if named and more else []
    verb = "differs" if len(differing) == 1 else "differ"
    text = f"Of {number} of fusions {len(differing)} {verb} in macro F1 after Holm's correction"
    return [f"{text}: {', '.join(named)}." if named else f"{text}."]


def _in_words(pair: Series) -> str:
    above, below = (pair["first"], pair["second"]) if pair.value > 0 else (pair["second"], pair["first"])
    return f"{above} is {format_score(abs(pair.value))} above {below}"


def _against(modality: str, scored: DataFrame, pairs: DataFrame) -> str | None:
    """How many fusions surely beat the baseline of one modality; of several, the best."""
    alone = scored[scored.fusion == modality]
    if alone.empty:
        return None
    best = alone.system[alone[LEADING].astype(float).idxmax()]
    pairs = from_both_sides(pairs)
    against = pairs[pairs.first_is_fusion & (pairs["second"] == best)]
    if against.empty:
        return None
    better, worse = ((against.is_significant & is_so).sum() for is_so in (against.value > 0, against.value < 0))
    lost = f" ({worse} surely worse)" if worse else ""
    return f"{modality} alone: {better} of {counted(len(against), 'fusions')}{lost}"


def _blind(scored: DataFrame, num_labels: int) -> list[str]:
    """Systems that never predict some class; the majority class is one by its nature."""
    blind = scored[(scored.fusion != MAJORITY) & (scored.predicted_classes < num_labels)]
    named = [f"{name} (predicts {known} of {num_labels})" for name, known in zip(blind.system, blind.predicted_classes)]
    return [f"Some classes are never predicted by {', '.join(named)}."] if named else []


def _flattery(results: Results) -> list[str]:
    """What the paper's protocol adds to macro F1, in the mean over the systems."""
    entries = [entry for entry in results.flattery if entry.score == LEADING]
    if not entries:
        return []
    chosen = format_difference(mean(entry.best_epoch - entry.last_epoch for entry in entries))
    text = f"The paper's choice of the epoch on the reported rows adds {chosen} macro F1 to the last epoch's"
    both = [entry.difference.value for entry in entries if entry.difference is not None]
    if both:
        most, least, average = (format_difference(of(both)) for of in (max, min, mean))
        text += f"; all in all its protocol gives {average} more than folds of sessions on the same rows "
        text += f"({least} to {most})"
    return [f"{text}, in the mean over {counted(len(entries), 'systems')}."]
