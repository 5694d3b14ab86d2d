"""A Trainer for audio and text: the collator, the weighted sampler, and float16 that is float16 on a CPU too."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import ProcessorMixin, Trainer


@dataclass
class RsaCfnDataCollator:
    """
    Rows of a dataset → one batch; the processor decodes, resamples, normalises, tokenizes and pads.

    Args:
        processor ([`RsaCfnProcessor`]): The model's processor.
    """

    processor: ProcessorMixin

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Rows with `audio`, `text` and `label` → the processor's tensors and `labels` of shape `(batch_size,)`."""
        audio, text = [row["audio"] for row in rows], [row["text"] for row in rows]
        batch = self.processor(audio=audio, text=text, padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["label"] for row in rows])}


class RsaCfnTrainer(Trainer):
    """
    [`Trainer`] with real float16 on a CPU, rows scored in their own order, and a weighted sampler.

    Args:
        weighted_sampler (`bool`, defaults to `False`):
            Draw training rows with replacement, each with weight 1 / count of its class.
    """

    def __init__(self, *args, weighted_sampler: bool = False, **kwargs):
        self.weighted_sampler = weighted_sampler
        super().__init__(*args, **kwargs)

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        # accelerate takes fp16 on a CPU and computes in float32 without a word, though torch can do it.
        if self.accelerator.mixed_precision == "fp16" and self.accelerator.device.type == "cpu":
            self.accelerator.native_amp = True
            self.accelerator.scaler = torch.amp.GradScaler("cpu")

    def _get_eval_sampler(self, eval_dataset):
        # Grouping by length would reorder these rows too, and predictions would no longer be theirs.
        return torch.utils.data.SequentialSampler(eval_dataset)

    def _get_train_sampler(self, train_dataset=None):
        if not self.weighted_sampler:
            return super()._get_train_sampler(train_dataset)
        labels = np.asarray((train_dataset if train_dataset is not None else self.train_dataset)["label"])
        weights = 1 / np.bincount(labels)[labels]
        # A generator of its own, the same on every process: accelerate then deals one sequence out to all.
        generator = torch.Generator().manual_seed(self.args.seed)
        return torch.utils.data.WeightedRandomSampler(weights, len(weights), generator=generator)
