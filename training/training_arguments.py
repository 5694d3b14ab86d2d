"""All TrainingArguments, with our defaults: apart from the others, because importing them takes seconds."""

from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy, IntervalStrategy


def _ours(name: str, default) -> field:
    return field(default=default, metadata=TrainingArguments.__dataclass_fields__[name].metadata)


@dataclass
class RsaCfnTrainingArguments(TrainingArguments):
    """[`TrainingArguments`] with our defaults, of those that depend on no other argument."""

    __module__ = "training.arguments"  # in every training_args.bin

    per_device_eval_batch_size: int = _ours("per_device_eval_batch_size", 16)
    metric_for_best_model: str | None = _ours("metric_for_best_model", "macro_f1")
    logging_strategy: IntervalStrategy | str = _ours("logging_strategy", "epoch")
    length_column_name: str = _ours("length_column_name", "duration")
    # A model without scores and a card reaches the Hub only where that is asked for.
    hub_strategy: HubStrategy | str = _ours("hub_strategy", "end")
    hub_handler: bool = field(
        default=False, metadata={"help": "Push handler.py with the model, by which Inference Endpoints call it."}
    )

    def __post_init__(self):
        super().__post_init__()
        # The collator needs columns that the model doesn't take.
        self.remove_unused_columns = False
        self.label_names = ["labels"]
