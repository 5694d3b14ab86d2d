"""What a run shows while it goes on: the loss beside the bar of training, and curves for TensorBoard."""

import time
from pathlib import Path

from transformers import ProgressCallback, Trainer
from transformers.integrations import TensorBoardCallback


class LossProgressCallback(ProgressCallback):
    """
    [`ProgressCallback`] with the loss of the last step beside the bar; of several processes, the main one's.

    Args:
        trainer ([`Trainer`]): The one whose training it shows.
    """

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        # The Trainer keeps the sum since it last logged.
        self.loss_before = self.trainer._tr_loss.clone()

    def on_step_end(self, args, state, control, **kwargs):
        bar = self.training_bar
        # Reading the loss waits for the device, so only when the bar is drawn anew.
        if bar is not None and not bar.disable:
            if time.time() - bar.last_print_t >= bar.mininterval or state.global_step == state.max_steps:
                bar.set_postfix(loss=f"{(self.trainer._tr_loss - self.loss_before).item():.4f}", refresh=False)
        super().on_step_end(args, state, control, **kwargs)


def show_progress(trainer: Trainer) -> None:
    """Put the loss beside the bar, and what TensorBoard reads into `runs` in the run's folder."""
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(LossProgressCallback(trainer))
    for callback in trainer.callback_handler.callbacks:
        # A folder of its own choice would have the date in its name, and, for a run that only scores, lie elsewhere.
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(Path(trainer.args.output_dir) / "runs")


def log_scores(trainer: Trainer, metrics: dict[str, float], prefix: str) -> None:
    """
    Hand the scores of a pass outside training to whatever is reported to.

    Args:
        trainer ([`Trainer`]): Its reporting is told.
        metrics (`dict[str, float]`): Scores, whose names start with `prefix`.
        prefix (`str`): `"validation"`, whose scores continue those that are named `eval` during training; or one that
            starts with `"eval"`: those of the test part, which are named `test` instead.
    """
    if trainer.args.report_to:
        shown = "eval" if prefix == "validation" else prefix.replace("eval", "test", 1)
        trainer.log({f"{shown}{name.removeprefix(prefix)}": value for name, value in metrics.items()})
