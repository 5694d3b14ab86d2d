"""A Trainer for audio and text: the collator, the weighted sampler, and float16 that is float16 on a CPU too."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import ProcessorMixin, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from audio_rsa_cfn import EMPTY, SAMPLING_RATE, AudioError, decode_audio
from foundation.words import first_names
from training.augmentation import Augmentation, under
from training.cpu import CpuFunctions, keep_freed_memory, recompute_with_cpu_functions
from training.labels import IGNORED, sampling_weights, target_shares
from training.resuming import ResumableTrainer
from training.stopping import check_finite


logger = logging.getLogger(__name__)


@dataclass
class RsaCfnDataCollator:
    """Rows of a dataset → one batch; the processor resamples, normalises, tokenizes and pads. A row that can't be read
    any more keeps its place, as silence with the label -100; the batch has the reason by its ID, as `unread`."""

    processor: ProcessorMixin
    modality: str = "both"  # "audio" or "text" leaves out the other one
    audio_crop: str | None = None  # "random", "center" or "head", if it isn't the processor's choice
    attributes: Sequence[str] = ()  # columns that are targets beside the label
    augmentation: Augmentation | None = None  # of training rows
    condition: str | None = None  # of scored ones

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        target = "label_shares" if "label_shares" in rows[0] else "label"
        labels = torch.tensor([row[target] for row in rows])  # (B,), or (B, C) for shares
        rows, problems = self.read(rows)
        targets = {"labels": labels} if self.augmentation is None else self.augmentation(rows, labels)
        batch = {**self.model_inputs(rows), **targets}
        if self.attributes:
            values = [[row[name] for name in self.attributes] for row in rows]
            batch["attributes"] = torch.from_numpy(np.array(values, np.float32))  # (B, K)
        if problems:
            batch["labels"][list(problems)] = IGNORED
            batch["unread"] = {str(rows[place].get("segment_id")): problem for place, problem in problems.items()}
        return batch

    def read(self, rows: list[dict]) -> tuple[list[dict], dict[int, str]]:
        """The rows with their waveforms, and by its place in the batch what is wrong with one that can't be read."""
        if self.modality == "text" or "audio" not in rows[0]:
            return rows, {}
        read, problems = [], {}
        for place, row in enumerate(rows):
            try:
                waveform = decode_audio(row["audio"], None, self.processor.feature_extractor.sampling_rate)
                if not len(waveform):
                    raise AudioError(EMPTY)
            except AudioError as error:
                waveform, problems[place] = np.zeros(SAMPLING_RATE, dtype=np.float32), error.reason
            if self.condition is not None:
                waveform = under(self.condition, waveform)
            read.append({**row, "audio": waveform})
        return read, problems

    def model_inputs(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """The batch without its labels."""
        audio = [row["audio"] for row in rows] if self.modality != "text" and "audio" in rows[0] else None
        text = [row["text"] for row in rows] if self.modality != "audio" and "text" in rows[0] else None
        rows = {"audio": audio, "text": text, "context": [row.get("context") for row in rows] if text else None}
        return self.processor(**rows, padding=True, return_tensors="pt", audio_crop=self.audio_crop)


def uses_cpu_functions(args: TrainingArguments) -> bool:
    """Whether a run computes by [`CpuFunctions`]; a compiled model has functions of its own."""
    return args.device.type == "cpu" and not args.torch_compile


class CpuFunctionsCallback(TrainerCallback):
    """Prepares memory and activation checkpointing, which is in place when training begins."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        if uses_cpu_functions(args):
            keep_freed_memory()
            recompute_with_cpu_functions(model)


class RsaCfnTrainer(ResumableTrainer):
    """[`ResumableTrainer`] with real float16 and faster functions on a CPU, rows scored in their own order, and an end
    at the first loss that isn't finite. `batch_weighted_sampler` draws training rows with replacement, each class as
    often as any other; `learning_rates` are those of the parameters under a module's name, such as `audio_model`, where
    they aren't `args.learning_rate`."""

    def __init__(self, *args, batch_weighted_sampler: bool = False, learning_rates: dict | None = None, **kwargs):
        self.batch_weighted_sampler = batch_weighted_sampler
        self.learning_rates = learning_rates or {}
        self.cpu_functions = CpuFunctions()
        self.unread: dict[str, str] = {}  # the rows that this process had to skip in training, and why
        super().__init__(*args, **kwargs)
        self.add_callback(CpuFunctionsCallback)

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        # accelerate takes fp16 on a CPU and silently computes in float32, though torch can do it.
        if self.accelerator.mixed_precision == "fp16" and self.accelerator.device.type == "cpu":
            self.accelerator.native_amp = True
            self.accelerator.scaler = torch.amp.GradScaler("cpu")

    def compute_loss_context_manager(self):
        stack = super().compute_loss_context_manager()
        if uses_cpu_functions(self.args):
            stack.enter_context(self.cpu_functions)
        return stack

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if not self.learning_rates or len(optimizer.state):
            return optimizer
        modules = {name: set(self.model.get_submodule(name).parameters()) for name in self.learning_rates}
        groups = list(optimizer.param_groups)
        optimizer.param_groups.clear()
        for group in groups:
            rest = list(group["params"])
            for name, parameters in modules.items():
                mine = [parameter for parameter in rest if parameter in parameters]
                rest = [parameter for parameter in rest if parameter not in parameters]
                if mine:
                    optimizer.add_param_group({**group, "params": mine, "lr": self.learning_rates[name]})
            if rest:
                optimizer.add_param_group({**group, "params": rest})
        return optimizer

    def training_step(self, model, inputs, num_items_in_batch=None):
        for name, problem in inputs.get("unread", {}).items():
            if name not in self.unread:
                logger.warning(f"{name} is skipped in training, {problem}")
                self.unread[name] = problem
        loss = super().training_step(model, inputs, num_items_in_batch)
        check_finite(loss, self.state.global_step + 1, inputs.get("segment_id"))
        return loss

    def _prepare_inputs(self, inputs):
        # What is for messages; no model takes it.
        messages = ("segment_id", "unread")
        return super()._prepare_inputs({name: value for name, value in inputs.items() if name not in messages})

    def _finalize_training(self, *args):
        output = super()._finalize_training(*args)
        if lost := sorted(set(gather_object(list(self.unread)))):
            logger.warning(f"{len(lost)} rows could not be read during training and were skipped: {first_names(lost)}")
            output.metrics["train_skipped_rows"] = len(lost)
        return output

    def prediction_step(self, *args, **kwargs):
        loss, logits, labels = super().prediction_step(*args, **kwargs)
        if isinstance(logits, tuple):
            logits = torch.cat(logits, dim=1)  # attributes stand behind them
        if logits is not None and labels is not None:
            # NaN has a largest place too, and would be the answer of a class; such a row is none that can be scored.
            labels = labels.masked_fill(~logits.isfinite().all(dim=1), IGNORED)
        return loss, logits, labels

    def evaluation_loop(self, dataloader, *args, metric_key_prefix="eval", **kwargs):
        with self._average:
            output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        if output.predictions is not None and output.label_ids is not None:
            # The Trainer's is a mean over batches, which on several processes counts rows that fill up the last one.
            logits, labels = torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
            logits = logits[:, : self.model.config.num_labels]
            output.metrics[f"{metric_key_prefix}_loss"] = self.model.loss_function(logits, labels).item()
        return output

    def _get_eval_sampler(self, eval_dataset):
        # Grouping by length would reorder these rows too, and predictions would no longer be theirs.
        return torch.utils.data.SequentialSampler(eval_dataset)

    def _make_train_sampler(self, train_dataset=None):
        if self.batch_weighted_sampler:
            shares = target_shares(train_dataset if train_dataset is not None else self.train_dataset)
            return torch.utils.data.WeightedRandomSampler(sampling_weights(shares), len(shares))
        sampler = super()._make_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            # Clips over the limit are cropped to one length. A list, because a column of a dataset is read row by row,
            # which takes seconds for ten thousand rows.
            lengths = np.minimum(sampler.lengths[:], self.processing_class.max_audio_seconds).tolist()
            return LengthGroupedSampler(sampler.batch_size, lengths=lengths)
        return sampler
