"""A table of the cells that shows which are done, running, failed or left, and how long the rest may take."""

import json
import sys
import time
from pathlib import Path

from experiments.plan import Cell


LEFT, RUNNING, FAILED = "·", "…", "failed"


class Progress:
    """Prints one line for each cell that ends; on a terminal, the table below it, drawn anew."""

    def __init__(self, cells: list[Cell], left: set[str], num_processes: int, folder: Path):
        """`left` are the names of cells that aren't finished; all have their folders in `folder`."""
        self.cells = cells
        self.folder = folder
        self.num_processes = num_processes
        self.states = {cell.name: LEFT if cell.name in left else self._score(cell) for cell in cells}
        self.num_left = len(left)
        self.started: dict[str, float] = {}
        self.seconds: list[float] = []
        self.num_drawn = 0
        print(f"{len(cells) - len(left)} of {len(cells)} runs are finished; {num_processes} run at a time.")
        self._draw()

    def update(self, cell: Cell, state: str) -> None:
        """Take note that `cell` is now `"running"`, `"done"`, `"failed"` or `"stopped"`."""
        self._erase()
        if state == "running":
            self.started[cell.name] = time.monotonic()
            self.states[cell.name] = RUNNING
        elif state == "stopped":
            self.states[cell.name] = LEFT
            print(f"{cell.name}: stopped; the same command resumes it")
        else:
            self.num_left -= 1
            self.seconds.append(time.monotonic() - self.started[cell.name])
            self.states[cell.name] = self._score(cell) if state == "done" else FAILED
            number = len(self.cells) - self.num_left
            scored = f"macro F1 {self.states[cell.name]}" if state == "done" else FAILED
            print(f"[{number}/{len(self.cells)}] {cell.name}: {scored}, {self.seconds[-1]:.0f} s{self._outlook()}")
        self._draw()

    def close(self) -> None:
        """Print the final table, with or without a terminal."""
        self._erase()
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

    def _draw(self) -> None:
        if sys.stdout.isatty():
            table = self.table()
            print(table, flush=True)
            self.num_drawn = table.count("\n") + 1

    def _erase(self) -> None:
        if self.num_drawn:
            # Up to the first line of the table, and everything from there to the end of the screen.
            print(f"\x1b[{self.num_drawn}A\x1b[J", end="")
            self.num_drawn = 0
