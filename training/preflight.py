"""Two rows before training: what a model would die of in its first step, or be wrong by in silence."""

import copy
import logging

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch.nn.functional import dropout
from torch.nn.functional import scaled_dot_product_attention as attention

from foundation.errors import InputError, RunStopped
from foundation.words import first_names
from training.cpu import CpuFunctions
from training.model import loading


logger = logging.getLogger(__name__)

MOST_UNKNOWN = 0.05
NUM_TEXTS, NUM_LETTERS = 4000, 1000  # the training texts that are looked at, and the letters of each
TOLERANCE = 1e-4  # between a row alone and in a batch, of its largest number or of 1
LEGAL = "another, such as facebook/wav2vec2-base to hear or klue/roberta-base to read"


class WithoutDrops(CpuFunctions):
    """A context without dropout, and without what is left out where a random number is small: layers, modalities."""

    replacements = {
        dropout: lambda x, *args, **kwargs: x,
        attention: lambda *args, dropout_p=0.0, **kwargs: attention(*args, **kwargs),
        torch.rand: torch.ones,
    }


def preflight(model, processor, texts: list[str], model_args, training_args) -> None:
    """Try a copy of a model on the CPU, whose float32 is exact, on two rows of noise and of `texts`, those that train.
    What can't be used is an `InputError` of the first process."""
    reentrant = (training_args.activation_checkpointing_kwargs or {}).get("use_reentrant")
    if training_args.ddp_find_unused_parameters is None and not reentrant:
        # The Trainer's False beside activation checkpointing would end processes in which a layer is left out.
        training_args.ddp_find_unused_parameters = True
    saved = model_args.model_name_or_path and "model_name_or_path"
    names = {modality: saved or f"{modality}_model" for modality in model.fusion.modalities}
    names = {modality: (f"--{name}", getattr(model_args, name)) for modality, name in names.items()}
    problem = None
    if training_args.process_index == 0:
        try:
            if texts and "text" in names:
                check_tokens(model, processor, texts, " ".join(names["text"]))
            with torch.random.fork_rng(devices=[]), WithoutDrops():
                try_two_rows(copy.deepcopy(model).train(), processor, texts or ["a"], names)
        except InputError as error:
            problem = str(error)
    (problem,) = broadcast_object_list([problem])
    if problem is not None:
        raise InputError(problem) if training_args.process_index == 0 else RunStopped("", exit_code=2)


def check_tokens(model, processor, texts: list[str], name: str) -> None:
    """Refuse a tokenizer that has more tokens than the model, or doesn't know a twentieth of those of the texts."""
    tokenizer, num_tokens = processor.tokenizer, getattr(model.config.text_config, "vocab_size", np.inf)

    def tokenize(text):
        options = {"add_special_tokens": False, "truncation": True, "max_length": processor.max_text_tokens}
        return tokenizer(text[:NUM_LETTERS], **options)["input_ids"]

    texts = texts[:: len(texts) // NUM_TEXTS + 1]
    rows = [tokenize(text) for text in texts]
    ids = [number for row in rows for number in row]
    if (largest := max(tokenizer.vocab_size - 1, *ids, *tokenizer("a")["input_ids"])) >= num_tokens:
        raise InputError(f"{name} has {num_tokens} tokens, and its tokenizer number {largest}; give another model")
    unknown = tokenizer.unk_token_id
    if unknown not in ids:
        return
    words = [word for text, row in zip(texts, rows) if unknown in row for word in text.split()]
    example = next((word for word in words if unknown in tokenize(word)), words[0])
    share = ids.count(unknown) / len(ids)
    told = f"{name}: {share:.1%} of the tokens of the training texts are unknown, such as {first_names([example])}"
    if share > MOST_UNKNOWN:
        raise InputError(f"{told}; give a model of their language, or --trust_remote_code for its own tokenizer")
    logger.warning(told)


def try_two_rows(model, processor, texts: list[str], names: dict[str, tuple[str, str]]) -> None:
    """Refuse a model that two rows end in an error, or of which one is another when it is alone. The model isn't of use
    afterwards. `names` are argument and value of each backbone."""
    rate, texts = processor.feature_extractor.sampling_rate, sorted(texts, key=len)
    noise = np.random.default_rng(0).normal(0, 0.1, int(min(processor.max_audio_seconds, 1) * rate)).astype(np.float32)
    rows = {"audio": [noise, noise[: len(noise) // 3]]}
    rows["text"] = [f"{texts[-1][:NUM_LETTERS]} {texts[0]}", texts[0][:10]]

    def answer(labels=None, **rows):
        ends = model.config.attribute_ranges
        values = None if labels is None or ends is None else torch.tensor(ends).T  # (2, K)
        return model(**processor(**rows, sampling_rate=rate, return_tensors="pt"), labels=labels, attributes=values)

    # No SpecAugment, which draws numpy's random numbers.
    model.config.audio_config.update({"mask_time_prob": 0.0, "mask_feature_prob": 0.0})
    model.runs_lengths_apart = False  # as on an accelerator, where rows are padded
    for modality, name in names.items():
        with torch.no_grad(), loading(*name, LEGAL):
            together, alone = (answer(**{modality: values}) for values in (rows[modality], rows[modality][1:]))
        for output in (f"{modality}_embeds", "logits"):
            difference = (together[output][1] - alone[output][0]).abs().max() / alone[output].abs().max().clamp(min=1)
            if not difference <= TOLERANCE and model.config.mask_padding:
                told = "what it makes of a row depends on the padding beside it"
                raise InputError(f"{' '.join(name)}: {told} (by {difference:.1g} in {output}); give {LEGAL}")
    with loading(" and ".join(map(" ".join, dict.fromkeys(names.values()))), "", LEGAL):
        labels = torch.arange(2) % model.config.num_labels
        answer(labels, **{modality: rows[modality] for modality in names}).loss.backward()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    unused = [name for name in trained if trained[name].grad is None and not name.endswith("masked_spec_embed")]
    if unused:
        logger.warning(f"{len(unused)} weights have no part in the answer and don't train: {first_names(unused)}")
