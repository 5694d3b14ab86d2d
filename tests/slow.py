"""Parameters of tests that are long by nature: most run with `python -m pytest -m slow` only."""

import pytest


def mostly_slow(values, *quick):
    """All values, of which those after the first argument are run by default and the others with the slow tests."""
    assert set(quick) <= set(values)
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
