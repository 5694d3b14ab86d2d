"""Time and memory of functions, measured side by side in one process."""

import statistics
import time
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def median_seconds(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """
    Median duration of each function in seconds, after one unmeasured call.

    The functions take turns, so that a busy machine slows all of them alike.
    """
    durations = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:
                durations[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in durations.items()}


def peak_tensor_bytes(function: Callable[[], object]) -> int:
    """The most bytes of CPU tensors alive at once that were allocated while the function ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak
