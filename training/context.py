"""The turns before an utterance, as a model reads them before its transcript."""

from collections import defaultdict


SAME, OTHER = "+ ", "- "  # before a turn of the same speaker, and of another; nothing where one isn't known


def preceding_turns(columns: dict[str, list], num_turns: int) -> list[list[str]]:
    """Of each row the texts of the last `num_turns` rows before it in its dialogue, the earliest first, those of its
    own column `context` where it has one. Rows of one `dialogue` are those of one part, in the order of `start` where
    all have it, otherwise in that of the dataset. No later turn is read."""
    number = len(columns["part"])
    given, dialogues, speakers = (columns.get(name, [None] * number) for name in ("context", "dialogue", "speaker"))
    starts = columns.get("start", [None])
    starts = [0] * number if None in starts else starts
    turns, told = [[] for _ in range(number)], defaultdict(list)
    for row in sorted(range(number), key=starts.__getitem__):
        said = told[columns["part"][row], dialogues[row]]
        if given[row] is not None:
            turns[row] = given[row][-num_turns:]
        elif dialogues[row] is not None:
            turns[row] = [_marked(text, who, speakers[row]) for who, text in said[-num_turns:]]
        if columns["text"][row]:
            said.append((speakers[row], columns["text"][row]))
    return turns


def _marked(text: str, who: str | None, speaker: str | None) -> str:
    return text if who is None or speaker is None else f"{SAME if who == speaker else OTHER}{text}"
