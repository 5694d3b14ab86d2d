"""Corpora of emotional speech: one module per corpus turns a folder into rows, `arrow` turns rows into a dataset.
Nothing in here imports torch, and the modules that read a corpus do not import `datasets` either."""


class CorpusError(ValueError):
    """The user pointed at something that can't be converted; the message is one line that says what to do."""
