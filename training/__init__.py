"""What run_classification.py puts together: arguments, data and splits, backbones, metrics, Trainer and report."""


class InputError(ValueError):
    """Something given can't be used; the message is one line: what was given, what is legal, what to do."""


class RunStopped(Exception):
    """
    A run ends before its end; the message is one line: why, and how to go on.

    Args:
        message (`str`): Empty where another process says it.
        exit_code (`int`): Of the script.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
