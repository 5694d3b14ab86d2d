"""A line for each cell that ends, which says how long the rest may take, and a table of all that were tried."""

import json
import time
from pathlib import Path

from experiments.plan import Cell


LEFT, FAILED = "·", "failed"


class Progress:
    """Prints one line for each cell that ends, and the table when all have."""

    def __init__(self, cells: list[Cell], left: set[str], num_processes: int, folder: Path):
        """`left` are the names of cells that aren't finished; all have their folders in `folder`."""
        self.cells = cells
        self.folder = folder
        self.num_processes = num_processes
        self.states = {cell.name: LEFT if cell.name in left else self._score(cell) for cell in cells}
        self.num_left = len(left)
        self.started: dict[str, float] = {}
        self.seconds: list[float] = []
        print(f"{len(cells) - len(left)} of {len(cells)} runs are finished; {num_processes} run at a time.", flush=True)

    def update(self, cell: Cell, state: str) -> None:
        """Take note that `cell` is now `"running"`, `"done"`, `"failed"` or `"stopped"`."""
        if state == "running":
            self.started[cell.name] = time.monotonic()
        elif state == "stopped":
            print(f"{cell.name}: stopped; the same command resumes it", flush=True)
        else:
            self.num_left -= 1
            self.seconds.append(time.monotonic() - self.started[cell.name])
            self.states[cell.name] = self._score(cell) if state == "done" else FAILED
            number = len(self.cells) - self.num_left
            scored = f"macro F1 {self.states[cell.name]}" if state == "done" else FAILED
            seconds = f"{self.seconds[-1]:.0f} s{self._outlook()}"
            print(f"[{number}/{len(self.cells)}] {cell.name}: {scored}, {seconds}", flush=True)

    def close(self) -> None:
        """Print the table."""
        print(self.table())

    def table(self) -> str:
        """Systems in rows; protocols, folds and seeds in columns; macro F1 of those that are done."""
        columns = list(dict.fromkeys((cell.protocol, cell.fold, cell.seed) for cell in self.cells))
        systems = list(dict.fromkeys(cell.system for cell in self.cells))
        states = {(cell.system, cell.protocol, cell.fold, cell.seed): self.states[cell.name] for cell in self.cells}
        lines = [
            ["", *(protocol for protocol, *_ in columns)],
            ["", *("" if fold is None else f"fold {fold}" for _, fold, _ in columns)],
            ["macro F1", *(f"seed {seed}" for *_, seed in columns)],
            *([name, *(states.get((name, *column), "") for column in columns)] for name in systems),
        ]
        width = max(len(first) for first, *_ in lines)
        return "\n".join(f"{first:<{width}}" + "".join(f" {entry:>9}" for entry in rest) for first, *rest in lines)

    def _score(self, cell: Cell) -> str:
        results = json.loads((self.folder / cell.name / "all_results.json").read_text(encoding="utf-8"))
        return f"{results['eval_macro_f1']:.3f}".removeprefix("0")

    def _outlook(self) -> str:
        if not self.num_left:
            return ""
        minutes = sum(self.seconds) / len(self.seconds) * self.num_left / self.num_processes / 60
        return f"; {self.num_left} left, about {minutes:.0f} min" if minutes >= 1 else f"; {self.num_left} left"
