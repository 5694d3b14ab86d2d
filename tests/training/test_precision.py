"""Precision: what a device can't do is replaced by the next best, and what is asked for is computed in."""

import pytest
import torch
from datasets import Dataset
from transformers import TrainingArguments

from foundation.errors import InputError
from training.precision import Device, choose_precision, find_device
from training.trainer import RsaCfnDataCollator, RsaCfnTrainer


CUDA = Device("cuda")
VOLTA = Device("cuda", has_bf16=False)
OLD_MACOS = Device("mps", has_bf16=False)
NEITHER = Device("mps", has_fp16=False, has_bf16=False)


@pytest.mark.parametrize(
    "asked, device, precision, said",
    [
        ("fp16", CUDA, "fp16", None),
        ("bf16", CUDA, "bf16", None),
        ("fp16", Device("cpu"), "fp16", None),
        ("no", NEITHER, "no", None),
        (
            "bf16",
            VOLTA,
            "fp16",
            "--bf16: this cuda device has no bfloat16, so the run computes in float16, as with --fp16",
        ),
        ("bf16", OLD_MACOS, "fp16", "--bf16: this mps device has no bfloat16, so the run computes in float16"),
        ("bf16", NEITHER, "no", "--bf16: this mps device has no bfloat16, so the run computes in float32."),
        ("fp16", NEITHER, "no", "--fp16: this mps device has no float16, so the run computes in float32."),
        (
            "fp16",
            Device("xpu", has_fp16=False),
            "bf16",
            "has no float16, so the run computes in bfloat16, as with --bf16",
        ),
    ],
)
def test_what_a_device_lacks_is_replaced_and_said(asked, device, precision, said):
    chosen, message = choose_precision(asked == "fp16", asked == "bf16", device)
    assert chosen == precision
    assert message is None if said is None else said in message


def test_two_precisions_are_refused():
    with pytest.raises(InputError, match="--fp16 and --bf16 exclude each other; give one of them"):
        choose_precision(True, True, CUDA)


def test_a_cpu_has_both():
    assert find_device(use_cpu=True) == Device("cpu", has_fp16=True, has_bf16=True)


@pytest.mark.parametrize(
    "arguments, dtype", [({"fp16": True}, torch.float16), ({"bf16": True}, torch.bfloat16), ({}, torch.float32)]
)
def test_logits_are_of_the_precision_that_was_asked_for(
    arguments, dtype, make_model, processor, clips, texts, tmp_path
):
    audio = [{"array": clip.tolist(), "sampling_rate": 16000} for clip in clips]
    rows = Dataset.from_list([{"audio": a, "text": t, "label": i} for i, (a, t) in enumerate(zip(audio, texts))])
    model, dtypes = make_model(), set()
    # Of the fusion, as accelerate turns the outputs of the whole model into float32.
    model.fusion.register_forward_hook(lambda module, inputs, outputs: dtypes.add(outputs[0].dtype))
    trainer = RsaCfnTrainer(
        model=model,
        args=TrainingArguments(
            str(tmp_path), use_cpu=True, max_steps=3, save_strategy="no", disable_tqdm=True, label_names=["labels"],
            remove_unused_columns=False, **arguments
        ),
        data_collator=RsaCfnDataCollator(processor),
        train_dataset=rows,
    )  # fmt: skip
    assert torch.isfinite(torch.tensor(trainer.train().training_loss)) and dtypes == {dtype}
