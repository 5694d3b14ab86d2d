"""What a run shows while it goes on: its first step, the loss beside the bar, curves for TensorBoard."""

import logging
import time
from pathlib import Path

import psutil
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from metrics.scores import SCORES


logger = logging.getLogger(__name__)

# Of what the Trainer logs, what a line on the screen has.
SHOWN = ("loss", "grad_norm", "learning_rate", "eval_loss", *(f"eval_{name}" for name in SCORES))
SHOWN += ("train_loss", "train_runtime", "train_samples_per_second")


class FirstStepCallback(TrainerCallback):
    """Logs, once, how long after its start the process had trained its first step; `model_seconds` built the model."""

    def __init__(self, model_seconds: float):
        self.model_seconds = model_seconds
        self.is_logged = False

    def on_optimizer_step(self, args, state, control, **kwargs):
        if not self.is_logged:
            seconds = time.time() - psutil.Process().create_time()
            logger.info(f"First training step after {seconds:.1f} s, {self.model_seconds:.1f} s of it for the model.")
            self.is_logged = True


class LossProgressCallback(ProgressCallback):
    """[`ProgressCallback`] with the loss of the last step beside the bar; of several processes, the main one's."""

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        # The Trainer keeps the sum since it last logged.
        self.loss_before = self.trainer._tr_loss.clone()

    def on_step_end(self, args, state, control, **kwargs):
        bar = self.training_bar
        # Reading the loss waits for the device, so only when the bar is redrawn.
        if bar is not None and not bar.disable:
            if time.time() - bar.last_print_t >= bar.mininterval or state.global_step == state.max_steps:
                bar.set_postfix(loss=f"{(self.trainer._tr_loss - self.loss_before).item():.4f}", refresh=False)
        super().on_step_end(args, state, control, **kwargs)

    def on_log(self, args, state, control, **kwargs):
        """[`LogLineCallback`] does."""


class LogLineCallback(TrainerCallback):
    """Writes what is logged as one line of the main scores, above the bar if there is one."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        scores = ", ".join(f"{name} {logs[name]:.4g}" for name in SHOWN if name in logs)
        if state.is_world_process_zero and scores:
            tqdm.write(f"Epoch {logs.get('epoch', 0):.4g}: {scores}")


def show_progress(trainer: Trainer) -> None:
    """Put the loss beside the bar, and what TensorBoard reads into `runs` in the run's folder. Trackers are told of
    scores by [`log_scores`] alone, and of the end by [`end_reports`]."""
    trainer.remove_callback(PrinterCallback if trainer.args.disable_tqdm else ProgressCallback)
    trainer.add_callback(LogLineCallback())
    if not trainer.args.disable_tqdm:
        trainer.add_callback(LossProgressCallback(trainer))
    for callback in trainer.callback_handler.callbacks:
        # By default the folder has the date in its name, and lies elsewhere for a run that only scores.
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(Path(trainer.args.output_dir) / "runs")
        if type(callback) in INTEGRATION_TO_CALLBACK.values():
            # By themselves they file the test part under `eval`, and what follows training under another run.
            callback.on_predict = callback.on_train_end = lambda *args, **kwargs: None


def end_reports(trainer: Trainer) -> None:
    """Have trackers end their run, when all that a command does has been reported."""
    for callback in trainer.callback_handler.callbacks:
        if vars(callback).pop("on_train_end", None) is not None:
            parts = {"model": trainer.model, "processing_class": trainer.processing_class}
            callback.on_train_end(trainer.args, trainer.state, trainer.control, **parts)


def log_scores(trainer: Trainer, metrics: dict[str, float], prefix: str) -> None:
    """Report scores from outside training: `validation` goes on from its `eval`, and `eval` becomes `test`."""
    if trainer.args.report_to:
        shown = "eval" if prefix == "validation" else prefix.replace("eval", "test", 1)
        trainer.log({f"{shown}{name.removeprefix(prefix)}": value for name, value in metrics.items()})
