"""Stopping: several processes stop together, whichever of them was told to."""

import json
import os
import signal

import pytest
import torch

from foundation.errors import RunStopped
from training.checkpoints import find_damage, list_checkpoints
from training.stopping import LAUNCHED, LAUNCHED_IN_GROUPS, StopOnSignalCallback, check_finite, stop_with_launcher


# In each of two runs the second process alone meets what stops both: a signal, and a loss that isn't finite.
STOPPED = """
import json, os, signal, sys
import torch
from datasets import Dataset
from transformers import TrainingArguments
from foundation.errors import RunStopped
from training.stopping import StopOnSignalCallback
from training.trainer import RsaCfnTrainer

class Model(torch.nn.Linear):
    def forward(self, row, labels):
        return {"loss": super().forward(row[:, None].float()).mean()}

def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in ("row", "labels")}

class Trainer(RsaCfnTrainer):
    def training_step(self, model, inputs, *args):
        if self.args.process_index == 1 and self.state.global_step == 2:
            if self.signals:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                inputs["row"] = inputs["row"] * float("nan")
        return super().training_step(model, inputs, *args)

dataset = Dataset.from_dict(
    {"row": list(range(32)), "labels": [0] * 32, "segment_id": [f"row{row}" for row in range(32)]}
)
told = []
for signals in (True, False):
    args = TrainingArguments(f"{sys.argv[1]}/{signals}", use_cpu=True, per_device_train_batch_size=2, save_steps=2,
        save_strategy="steps", remove_unused_columns=False, disable_tqdm=True, logging_strategy="no")
    stop_on_signal = StopOnSignalCallback()
    trainer = Trainer(Model(1, 1), args, data_collator=collate, train_dataset=dataset, callbacks=[stop_on_signal])
    trainer.signals = signals
    try:
        with stop_on_signal.listening():
            trainer.train()
    except RunStopped as stopped:
        told.append([stopped.exit_code, str(stopped), trainer.state.global_step])
with open(f"{sys.argv[1]}/{args.process_index}.json", "w") as file:
    json.dump(told, file)
"""


def test_two_processes_stop_together(processes, tmp_path):
    finished = processes.run("-c", STOPPED, tmp_path, num_processes=2)
    assert finished.returncode == 0, finished.stderr
    first, second = (json.loads((tmp_path / f"{process}.json").read_text()) for process in range(2))
    # The signal: both save the step they are in, and the first says so.
    assert first[0][0] == second[0][0] == 143 and first[0][2] == second[0][2] == 3
    assert first[0][1].startswith("stopped by SIGTERM after step 3 of") and second[0][1] == ""
    saved = list_checkpoints(tmp_path / "True")
    assert [path.name for path in saved] == ["checkpoint-2", "checkpoint-3"]
    assert [find_damage(path) for path in saved] == [None, None]
    assert {"rng_state_0.pth", "rng_state_1.pth", "progress_0.json", "progress_1.json"} <= {
        path.name for path in saved[1].iterdir()
    }
    # The loss: neither takes the step, and the one that met it names its rows.
    assert first[1] == [3, "", 2] and second[1][0] == 3
    assert second[1][1].startswith("the loss is nan in optimizer step 3") and second[1][1].count("row") == 2
    assert [path.name for path in list_checkpoints(tmp_path / "False")] == ["checkpoint-2"]


@pytest.mark.parametrize("loss", [float("inf"), float("-inf"), float("nan")])
def test_a_loss_that_is_not_finite_is_said_with_its_rows(loss):
    check_finite(torch.tensor(3.0), 7, ["a", "b"])
    with pytest.raises(RunStopped, match=f"the loss is {loss} in optimizer step 7: .* The batch holds a, b") as stopped:
        check_finite(torch.tensor(loss), 7, ["a", "b"])
    assert stopped.value.exit_code == 3
    with pytest.raises(RunStopped, match="The batch holds rows without IDs"):
        check_finite(torch.tensor(loss), 7, None)


def test_after_an_interrupt_the_end_of_the_launcher_is_no_other_reason():
    """Ctrl-C ends the launcher before this process has saved."""
    callback = StopOnSignalCallback()
    with callback.listening():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert callback.received == signal.SIGINT


@pytest.mark.parametrize(
    ("environment", "parents", "received"),
    [
        ({LAUNCHED: "default"}, [7, 7, 1], signal.SIGTERM),
        # It went before anyone looked; of several processes the launcher may be the first of its container.
        ({LAUNCHED: "default"}, [1], signal.SIGTERM),
        ({LAUNCHED: "default", LAUNCHED_IN_GROUPS: "none"}, [1, 1, 7], signal.SIGTERM),
        # A shell that is gone.
        ({}, [7, 1], 0),
    ],
)
def test_a_process_stops_when_its_launcher_is_gone(environment, parents, received, monkeypatch):
    left = list(parents)
    for name in (LAUNCHED, LAUNCHED_IN_GROUPS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.getppid", lambda: left.pop(0))
    monkeypatch.setattr("os.getpgid", lambda process: process)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("threading.Thread.start", lambda thread: thread.run())
    callback = StopOnSignalCallback()
    with callback.listening():
        stop_with_launcher()
        assert callback.received == received
    assert left == ([] if received else parents)


def test_a_second_interrupt_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    callback = StopOnSignalCallback()
    with callback.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert callback.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
