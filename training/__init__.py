"""What run_classification.py puts together: arguments, data and splits, backbones, metrics, Trainer and report."""


class InputError(ValueError):
    """Something given can't be used; the message is one line: what was given, what is legal, what to do."""
