"""A Trainer whose resumed run is the unbroken one bit for bit on a CPU, and whose last checkpoint is always whole."""

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from foundation.errors import InputError, RunStopped
from foundation.files import read_json, write_json
from training.checkpoints import FILE_LIST, FINISHED, TRAINING_WEIGHTS, delete, rotate, seal, writing
from training.draws import EpochSampler, TrainingCollator
from training.hub import HubTrainer


class SaveAfterEpochCallback(TrainerCallback):
    """Moves a save in the last step of an epoch, or of training, behind what follows it, its log and its evaluation: a
    run resumed from there begins with the next epoch. The last of the callbacks: others say when to save."""

    def __init__(self):
        self.is_in_step = False
        self.is_put_off = False

    def _put_off(self, state, control):
        is_last = float(state.epoch).is_integer() or control.should_training_stop
        if self.is_in_step and control.should_save and is_last:
            self.is_put_off = True
            control.should_save = False

    def on_step_end(self, args, state, control, **kwargs):
        self.is_in_step = True
        self._put_off(state, control)

    def on_evaluate(self, args, state, control, **kwargs):
        self._put_off(state, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        self.is_in_step = False
        if self.is_put_off:
            control.should_save = True
            self.is_put_off = False


class WeightAverage(TrainerCallback):
    """The average of what trains of a model, which has its own weights but within a `with` of this."""

    def __init__(self, model: nn.Module, decay: float, checkpoint: str | None, num_steps: int):
        def update(averages, weights, step):  # of a few steps the first would otherwise be most
            get_ema_multi_avg_fn(min(decay, (1 + step.item()) / (10 + step.item())))(averages, weights, step)

        self.trained = nn.ParameterList(weight for weight in model.parameters() if weight.requires_grad)
        self.average = AveragedModel(self.trained, multi_avg_fn=update)
        self.average.n_averaged.fill_(num_steps)
        if checkpoint is not None:
            self.trained.load_state_dict(load_file(Path(checkpoint, TRAINING_WEIGHTS)))

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.average.update_parameters(self.trained)

    def swap(self, *_) -> None:
        for weight, average in zip(self.trained, self.average.module):
            weight.data, average.data = average.data, weight.data

    __enter__ = __exit__ = swap

    def save(self, folder: Path) -> None:
        """Within a `with`, the weights that train."""
        save_file(self.average.module.state_dict(), folder / TRAINING_WEIGHTS)


class ResumableTrainer(HubTrainer):
    """[`HubTrainer`] that saves and restores what transformers' own leaves out: draws in the middle of an epoch, the
    loss since the last log, the patience of early stopping, and the time spent. `train_data_collator` makes its
    batches, where `data_collator` only makes those that are scored. With `ema_decay`, what it scores and saves is a
    [`WeightAverage`]."""

    def __init__(self, *args, train_data_collator: Callable | None = None, ema_decay: float = 0.0, **kwargs):
        self.train_data_collator = train_data_collator
        self.ema_decay, self._average = ema_decay, nullcontext()
        self._drawn_by_epoch = []
        self._resumed_from = None
        self._start = time.time()
        self._seconds_before = 0.0
        super().__init__(*args, **kwargs)

    @property
    def _draw_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def get_train_dataloader(self):
        scoring = self.data_collator
        self.data_collator = TrainingCollator(self.train_data_collator or scoring, self._draw_seed)
        self._drawn_by_epoch = [self.data_collator]
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = scoring

    def _get_train_sampler(self, train_dataset=None):
        sampler = self._make_train_sampler(train_dataset)
        if sampler is None or not hasattr(sampler, "generator"):
            return sampler
        sampler = EpochSampler(sampler, self._draw_seed)
        self._drawn_by_epoch.append(sampler)
        return sampler

    def _make_train_sampler(self, train_dataset=None):
        return super()._get_train_sampler(train_dataset)

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        self._resumed_from = resume_from_checkpoint
        self._start, self._seconds_before = time.time(), 0.0
        if resume_from_checkpoint is not None:
            # That was done when the run started.
            self.args.eval_on_start = False
        self.remove_callback(SaveAfterEpochCallback)
        self.add_callback(SaveAfterEpochCallback())
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if self.ema_decay:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise InputError("--ema_decay needs all weights in each process, which FSDP divides; leave out one")
            given = (self.ema_decay, resume_from_checkpoint, self.state.global_step)
            self._average = WeightAverage(self.model, *given)
            self.add_callback(self._average)
        return prepared

    def _run_epoch(self, *, epoch, **kwargs):
        self._restore_progress()
        if self._is_trained():
            self.control.should_training_stop = True
            return
        # Not left to accelerate, which doesn't reach the sampler of several processes that skip batches.
        for drawn in self._drawn_by_epoch:
            drawn.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def _is_trained(self) -> bool:
        """Whether there is no step left: a run may be resumed from its very end."""
        stopped_early = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )
        return stopped_early or self.state.global_step >= self.state.max_steps

    def _finalize_training(self, trial, num_train_samples, start_time):
        self._restore_progress()
        if self.ema_decay:
            self.remove_callback(self._average)
            self._average.swap()
            self._average = nullcontext()
        # Mean loss and speed are those of all steps, as if one process had run them.
        self._initial_global_step = 0
        return super()._finalize_training(trial, num_train_samples, start_time - self._seconds_before)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        progress = {
            "loss_since_log": float(self._tr_loss),
            "loss_before": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
            "seconds": self._seconds_before + time.time() - self._start,
        }
        write_json(self._progress_file(output_dir), progress)

    def _restore_progress(self):
        if self._resumed_from is None:
            return
        file = self._progress_file(self._resumed_from)
        self._resumed_from = None
        # There is none for a process that the saved run didn't have.
        if file.is_file():
            progress = read_json(file)
            self._tr_loss += progress["loss_since_log"]
            self._total_loss_scalar = progress["loss_before"]
            self._globalstep_last_logged = progress["last_logged_step"]
            self._seconds_before = progress["seconds"]

    def _progress_file(self, folder) -> Path:
        return Path(folder) / f"progress_{self.args.process_index}.json"

    def _load_callback_state(self):
        # transformers' own would bring back the patience that was given then, and with it all that callbacks hold.
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                saved = self.state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
                if isinstance(callback, EarlyStoppingCallback):
                    counter = saved["attributes"]["early_stopping_patience_counter"]
                    callback.early_stopping_patience_counter = counter
        # The folder of the run may have been moved.
        best = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        if self.state.best_model_checkpoint is None and best.is_dir():
            self.state.best_model_checkpoint = str(best)

    def _save_checkpoint(self, model, trial):
        output_dir = Path(self._get_output_dir(trial))
        folder = output_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        # transformers' own rotation would delete the last whole checkpoint before this one is.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with writing(folder), self._average:
                if self.args.should_save:
                    (folder / FILE_LIST).unlink(missing_ok=True)
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                if self.ema_decay and self.args.should_save:
                    self._average.save(folder)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    seal(folder)
        except RunStopped:
            if self.args.should_save:
                delete(folder)
            raise
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            keep = {folder} | (set() if best is None else {Path(best)})
            rotate(output_dir, self.args.save_total_limit, keep)
        # A process that stops now would take down the one that is still writing.
        self.accelerator.wait_for_everyone()

    # Both never half-written, as transformers' own may be; the state marks the run as finished.

    def save_state(self):
        if self.is_world_process_zero():
            write_json(Path(self.args.output_dir) / FINISHED, asdict(self.state))

    def save_metrics(self, split, metrics, combined=True):
        if not self.is_world_process_zero():
            return
        folder, together = Path(self.args.output_dir), {}
        write_json(folder / f"{split}_results.json", dict(sorted(metrics.items())))
        # Put together from all that were written, if all_results.json, the first of them, is damaged.
        for file in sorted(folder.glob("*_results.json")) if combined else ():
            with suppress(InputError):
                together |= read_json(file)
        if combined:
            write_json(folder / "all_results.json", dict(sorted(together.items())))
