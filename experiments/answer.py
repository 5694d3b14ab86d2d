"""What the numbers say, in plain words: which systems are best, which pairs surely differ, what the protocol adds.
Every sentence is made from the results, so that it can't promise what a table takes back."""

from statistics import mean

from experiments.results import MAJORITY, PAPER, SESSION, Comparison, Results, SystemScores
from experiments.tables import (
    LEADING,
    SINGLE_MODALITIES,
    find_protocols,
    find_scores,
    find_system,
    format_interval,
    format_score,
    is_fusion,
    is_significant,
)


BEST_NAMED = 3
PAIRS_NAMED = 3


def answer(results: Results) -> list[str]:
    """One paragraph on the fairest protocol that has scores, and a shorter one on the other."""
    scored = [(protocol, scores) for protocol in find_protocols(results) if (scores := find_scores(results, protocol))]
    if not scored:
        return ["No run has finished, so there is nothing to tell yet."]
    paragraphs = []
    for number, (protocol, scores) in enumerate(scored):
        sentences = [_best(results, protocol, scores), *_pairs(results, protocol, 0 if number else PAIRS_NAMED)]
        paragraphs.append(" ".join([*sentences, *_blind(results, scores)]))
    return [*paragraphs, *_flattery(results)]


def _best(results: Results, protocol: str, scores: list[SystemScores]) -> str:
    where = {
        SESSION: "On sessions that were not trained on (protocol session",
        PAPER: "On a random split whose reported rows choose the epoch (protocol paper",
    }[protocol]
    folds = {fold for entry in scores for fold in entry.folds}
    seeds = {seed for entry in scores for seed in entry.seeds}
    where += f", {_counted(len(folds), 'fold')}" if folds else ""
    where += f", {_counted(len(seeds), 'seed')})"
    trained = [entry for entry in scores if find_system(results, entry.system).fusion != MAJORITY]
    ranked = sorted(trained, key=lambda entry: -entry.estimates[LEADING].value)
    majority = [entry for entry in scores if entry not in trained]
    chance = f"always answering the most frequent class has {_value(majority[0])}" if majority else ""
    if not ranked:
        return f"{where} nothing but the baseline was scored: {chance}."
    text = f"{where} {ranked[0].system} has the highest macro F1, {_value(ranked[0])}"
    if "unweighted_average_recall" in ranked[0].estimates:
        text += f" (unweighted average recall {_value(ranked[0], 'unweighted_average_recall')})"
    if len(ranked) > 1:
        text += ", before " + " and ".join(f"{entry.system} {_value(entry)}" for entry in ranked[1:BEST_NAMED])
    return f"{text}; {chance}." if chance else f"{text}."


def _value(entry: SystemScores, name: str = LEADING) -> str:
    estimate = entry.estimates[name]
    return f"{format_score(estimate.value)} {format_interval(estimate.low, estimate.high)}".strip()


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _pairs(results: Results, protocol: str, number_named: int) -> list[str]:
    """Pairs of fusions, then fusions against a single modality."""
    pairs = [entry for entry in results.comparisons if entry.protocol == protocol and LEADING in entry.differences]
    fusions = [pair for pair in pairs if all(is_fusion(system) for system in _systems(results, pair))]
    sentences = []
    if fusions:
        differing = [pair for pair in fusions if is_significant(pair.differences[LEADING])]
        differing.sort(key=lambda pair: -abs(pair.differences[LEADING].value))
        if differing:
            named = [_in_words(pair) for pair in differing[:number_named]]
            more = len(differing) - len(named)
            named += [f"{more} more"] if named and more else []
            verb = "differs" if len(differing) == 1 else "differ"
            text = f"Of {_counted(len(fusions), 'pair')} of fusions {len(differing)} {verb} in macro F1"
            text += " after Holm's correction"
            sentences.append(f"{text}: {', '.join(named)}." if named else f"{text}.")
        else:
            which = "No pair of fusions differs" if len(fusions) > 1 else "The two fusions don't differ"
            sentences.append(
                f"{which} in macro F1 after Holm's correction ({_counted(len(fusions), 'pair')}), so their order "
                "may be chance."
            )
    against = [text for name in SINGLE_MODALITIES if (text := _against(results, protocol, pairs, name)) is not None]
    return [*sentences, f"Surely better than {'; than '.join(against)}."] if against else sentences


def _systems(results: Results, pair: Comparison) -> list:
    return [find_system(results, name) for name in (pair.first, pair.second)]


def _in_words(pair: Comparison) -> str:
    difference = pair.differences[LEADING]
    above, below = (pair.first, pair.second) if difference.value > 0 else (pair.second, pair.first)
    return f"{above} is {format_score(abs(difference.value))} above {below}"


def _against(results: Results, protocol: str, pairs: list[Comparison], modality: str) -> str | None:
    """How many fusions surely beat the baseline of one modality; of several, the best."""
    scored = [
        entry for entry in find_scores(results, protocol) if find_system(results, entry.system).fusion == modality
    ]
    best = max(scored, key=lambda entry: entry.estimates[LEADING].value, default=None)
    better, worse, number = 0, 0, 0
    for pair in pairs:
        systems = _systems(results, pair)
        alone = [system for system in systems if best is not None and system.name == best.system]
        if not alone or not any(is_fusion(system) for system in systems):
            continue
        difference = pair.differences[LEADING]
        is_above = (difference.value > 0) == (pair.second == alone[0].name)
        number += 1
        better += is_above and is_significant(difference)
        worse += not is_above and is_significant(difference)
    if not number:
        return None
    lost = f" ({worse} surely worse)" if worse else ""
    return f"{modality} alone: {better} of {_counted(number, 'fusion')}{lost}"


def _blind(results: Results, scores: list[SystemScores]) -> list[str]:
    """Systems that never predict some class; the majority class is one by its nature."""
    blind = []
    for entry in scores:
        known = sum(label.predicted > 0 for label in entry.classes)
        if find_system(results, entry.system).fusion != MAJORITY and known < len(entry.classes):
            blind.append(f"{entry.system} (predicts {known} of {len(entry.classes)})")
    return [f"Some classes are never predicted by {', '.join(blind)}."] if blind else []


def _flattery(results: Results) -> list[str]:
    """What the paper's protocol adds to macro F1, in the mean over the systems."""
    entries = [entry for entry in results.flattery if entry.score == LEADING]
    if not entries:
        return []
    chosen = mean(entry.best_epoch - entry.last_epoch for entry in entries)
    text = f"The paper's choice of the epoch on the reported rows adds {_signed(chosen)} macro F1 to the last epoch's"
    both = [entry.difference.value for entry in entries if entry.difference is not None]
    if both:
        text += (
            f"; all in all its protocol gives {_signed(mean(both))} more than folds of sessions on the same rows "
            f"({_signed(min(both))} to {_signed(max(both))})"
        )
    return [f"{text}, in the mean over {_counted(len(entries), 'system')}."]


def _signed(value: float) -> str:
    return format_score(value, is_difference=True)
