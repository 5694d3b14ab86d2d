"""What the numbers say, in plain words: which systems are best, which pairs surely differ, what the protocol adds.
Every sentence is made from the results, so that it can't promise what a table takes back."""

from statistics import mean

from pandas import DataFrame, Series

from experiments.records import MIN_SEEDS, from_both_sides, pair_frame, system_frame
from experiments.results import MAJORITY, PAPER, SESSION, SINGLE_MODALITIES, Results
from experiments.sheets import format_difference, format_interval, format_p, format_score
from foundation.words import counted
from metrics.intervals import MIN_GROUPS
from metrics.scores import LEADING


NEXT_NAMED = 2
PAIRS_NAMED = 3
WHERE = {
    SESSION: "on sessions that were not trained on (protocol session)",
    PAPER: "on a random split whose reported rows choose the epoch (protocol paper)",
}
NO_VERDICT = f"without a verdict, which takes {MIN_SEEDS} seeds and {MIN_GROUPS} sessions or speakers"


def answer(results: Results) -> list[str]:
    """A sentence to quote and a paragraph on the fairest protocol that has scores, and a shorter one on the other."""
    systems = system_frame(results)
    systems = systems[systems.state == "finished"]
    if systems.empty:
        return ["No run has finished, so there is nothing to tell yet."]
    paragraphs = []
    for protocol, scored in systems.groupby("protocol", sort=False):
        pairs = pair_frame(results, protocol)
        sentences = [_others(scored), *_pairs(pairs, number_named=0 if paragraphs else PAIRS_NAMED)]
        against = [text for modality in SINGLE_MODALITIES if (text := _against(modality, scored, pairs))]
        sentences += [f"Surely better than {'; than '.join(against)}."] if against else []
        sentences += _blind(scored, len(results.label_names))
        headline, text = _headline(protocol, scored, pairs), " ".join(sentences).strip()
        paragraphs += [f"{headline} {text}".strip()] if paragraphs else [headline, *([text] if text else [])]
    return [*paragraphs, *_flattery(results)]


def _ranked(scored: DataFrame) -> DataFrame:
    """All but the majority class, the best first."""
    return scored[scored.fusion != MAJORITY].sort_values(LEADING, ascending=False, kind="stable")


def _headline(protocol: str, scored: DataFrame, pairs: DataFrame) -> str:
    """Which system is best, by how much and how surely, and of how many runs."""
    numbers = {what: set(" ".join(scored[what]).split()) for what in ("folds", "seeds")}
    runs = " × ".join(counted(len(found), what) for what, found in numbers.items() if found)
    where = f"{WHERE[protocol]}, over {runs}"
    ranked = _ranked(scored)
    if ranked.empty:
        return f"Nothing but the baseline was scored {where}."
    best, text = ranked.iloc[0], f"{ranked.system.iloc[0]} has the highest macro F1 {where}: {_value(ranked.iloc[0])}"
    if len(ranked) == 1:
        return f"{text}."
    second, both = ranked.iloc[1], from_both_sides(pairs)
    pair = both[(both["first"] == best.system) & (both["second"] == second.system)]
    if pair.empty:  # no rows that both were scored on
        return f"{text}, before {second.system} with {_value(second)}, {NO_VERDICT}."
    (pair,) = (row for _, row in pair.iterrows())
    verdict = "which may be chance" if pair.has_verdict else NO_VERDICT
    verdict = f"surely (p {format_p(pair.p_holm)} after Holm's correction)" if pair.is_significant else verdict
    by = f"{format_score(pair.value)} {format_interval(pair.low, pair.high, is_difference=True)}".strip()
    return f"{text}, {by} above {second.system}, {verdict}."


def _others(scored: DataFrame) -> str:
    """What else the table says of the best, who comes next, and chance."""
    ranked, told = _ranked(scored), []
    for place, (_, entry) in enumerate(ranked.head(1 + NEXT_NAMED).iterrows()):
        recall = f"Its unweighted average recall is {_value(entry, 'unweighted_average_recall')}"
        told.append(f"{'next come' if place == 1 else 'and'} {entry.system} {_value(entry)}" if place else recall)
    text = "; ".join(told).replace("; and", " and")
    chance = [
        f"always answering the most frequent class has {_value(entry)}"
        for _, entry in scored[scored.fusion == MAJORITY].iterrows()
    ]
    text = "; ".join(filter(None, [text, *chance]))
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _value(entry: Series, name: str = LEADING) -> str:
    return f"{format_score(entry[name])} {format_interval(entry[f'{name}_low'], entry[f'{name}_high'])}".strip()


def _pairs(pairs: DataFrame, number_named: int) -> list[str]:
    """Which fusions surely differ from each other."""
    fusions = pairs[pairs.first_is_fusion & pairs.second_is_fusion]
    if fusions.empty:
        return []
    if not fusions.has_verdict.any():
        return [f"Fusions are ranked {NO_VERDICT}."]
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
    if not against.has_verdict.any():
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
