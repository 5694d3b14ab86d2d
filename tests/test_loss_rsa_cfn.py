"""The loss: cross entropy with weights, smoothing and soft labels, and that of attributes, whatever accumulation and
processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Trainer, TrainingArguments

from tests.slow import mostly_slow


VARIANTS = {
    "plain": ({}, False),
    "weighted": ({"class_weights": [0.5, 2.0, 1.0, 1.0, 1.5, 0.25, 1], "label_smoothing": 0.1}, False),
    "soft": ({"class_weights": [0.5, 2.0, 1.0, 1.0, 1.5, 0.25, 1], "label_smoothing": 0.1}, True),
    "squared errors": ({"attributes": ["valence", "arousal"], "attribute_loss": "mse", "attribute_weight": 3}, False),
}
CCC = {"attributes": ["valence", "arousal"], "attribute_ranges": [[1.0, 5.0], [-2.0, 0.0]]}


@pytest.fixture
def logits():
    return torch.randn(5, 7, requires_grad=True)


@pytest.fixture
def rows():
    """16 rows of one length with a class; a row isn't labelled, so that batches differ in their number of labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 7, (16,), generator=generator)
    labels[3] = -100
    return [
        {
            "input_values": torch.randn(800, generator=generator),
            "input_ids": torch.randint(3, 64, (6,), generator=generator),
            "labels": label,
        }
        for label in labels
    ]


def soften(rows):
    """Vote shares in place of classes; -100 for each class of the row that has none."""
    shares = [torch.full((7,), -100.0) if r["labels"] < 0 else 0.8 * F.one_hot(r["labels"], 7) + 0.2 / 7 for r in rows]
    return [{**row, "labels": share} for row, share in zip(rows, shares)]


def test_plain_loss_is_cross_entropy(make_model, logits):
    labels = torch.tensor([0, 6, -100, 3, 3])
    loss = make_model(fusion="text").loss_function(logits, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    assert make_model(fusion="text").loss_function(logits, torch.full((5,), -100)).item() == 0


def test_weights_and_smoothing(make_model, logits):
    fields, _ = VARIANTS["weighted"]
    labels = torch.tensor([0, 6, -100, 3, 3])
    loss = make_model(fusion="text", **fields).loss_function(logits, labels)
    weight = torch.tensor(fields["class_weights"])
    expected = F.cross_entropy(logits, labels, weight=weight, label_smoothing=0.1, reduction="sum") / 4
    torch.testing.assert_close(loss, expected)


def test_mixed_features_learn_their_mixed_labels(make_model, rows):
    model = make_model(fusion="early_fusion").eval()
    inputs = {name: torch.stack([row[name] for row in rows[:3]]) for name in ("input_values", "input_ids")}
    mixing = torch.tensor([[0.7, 0.3, 0], [0, 1, 0], [0.5, 0, 0.5]])
    shares = mixing @ torch.eye(7)[:3]
    audio, text = model.get_audio_features(inputs["input_values"]), model.get_text_features(inputs["input_ids"])
    mixed = model.fusion.classifier_head(mixing @ model.fusion.norm(torch.cat([audio, text], dim=1)))
    output = model(**inputs, labels=shares, mixing=mixing)
    torch.testing.assert_close(output.logits, mixed)
    torch.testing.assert_close(output.loss, F.cross_entropy(mixed, shares))


def test_soft_labels(make_model, logits):
    fields, _ = VARIANTS["weighted"]
    model = make_model(fusion="text", **fields)
    shares = torch.tensor([[0.5, 0.5, 0, 0, 0, 0, 0], [0.0] * 7, [0, 0, 0, 0.2, 0.2, 0.6, 0], [-100.0] * 7, [0.0] * 7])
    targets = 0.9 * shares[[0, 2]] + 0.1 / 7
    weight = torch.tensor(fields["class_weights"])
    expected = -(weight * targets * logits[[0, 2]].log_softmax(dim=1)).sum() / 2
    torch.testing.assert_close(model.loss_function(logits, shares), expected)
    torch.testing.assert_close(model.loss_function(logits, shares, torch.tensor(2 * 7)), expected)
    # A share of 1 is the class itself.
    labels = torch.tensor([0, 6, 2, 3, 3])
    hard = model.loss_function(logits, labels)
    torch.testing.assert_close(model.loss_function(logits, F.one_hot(labels, 7).float()), hard)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"class_weights": [1.0, 2.0]}, r"class_weights=\[1.0, 2.0\] doesn't fit num_labels=7"),
        ({"class_weights": [-1.0] * 7}, "give one weight of 0 or more"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 is out of range; give 0 to below 1"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1 is out of range"),
    ],
)
def test_illegal_values_are_named(fields, message, make_config):
    with pytest.raises(ValueError, match=message):
        make_config(**fields)


def concordance(values, told):
    """Of two columns, by NumPy."""
    distance = values.var() + told.var() + (values.mean() - told.mean()) ** 2
    return 2 * np.mean((values - values.mean()) * (told - told.mean())) / distance


def with_attributes(rows):
    """Two numbers in each row, and one of them in the fifth."""
    generator = torch.Generator().manual_seed(1)
    rows = [{**row, "attributes": torch.randn(2, generator=generator)} for row in rows]
    rows[4]["attributes"][1] = torch.nan
    return rows


@pytest.fixture
def told():
    """Valence and arousal of five rows as a model tells them, and as they are: not in the second and the last row."""
    told = torch.tensor([[2.0, -1.0], [3.0, 0.3], [4.5, -1.5], [1.0, -0.2], [3.1, -0.9]], requires_grad=True)
    return told, torch.tensor([[1.5, -1.2], [torch.nan] * 2, [4.0, -0.4], [2.5, -1.0], [torch.nan, -torch.inf]])


def test_the_loss_of_attributes_is_that_of_the_rows_with_a_value(make_model, told):
    told, values = told
    given = [0, 2, 3]
    pairs = list(zip(values[given].numpy().T, told.detach()[given].numpy().T))
    model = make_model(fusion="text", **CCC)
    expected = np.mean([1 - concordance(*pair) for pair in pairs])
    loss = model.attribute_loss(told, values, 5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert told.grad.isfinite().all() and (told.grad[given] != 0).all() and not told.grad[[1, 4]].any()
    squared = make_model(fusion="text", **CCC, attribute_loss="mse")
    halves = (2.0, 1.0)  # of the ranges
    expected = np.mean([np.sum(((pair[0] - pair[1]) / half) ** 2) / 5 for pair, half in zip(pairs, halves)])
    assert squared.attribute_loss(told, values, 5).item() == pytest.approx(expected, abs=1e-6)


def test_rows_without_a_label_have_no_part_in_the_loss_of_attributes(make_model, told, logits):
    told, values = told
    model = make_model(fusion="text", **CCC, attribute_weight=0.5)
    labels = torch.tensor([0, 1, -100, 3, 3])
    part = model.attribute_loss(told[[0, 3]], values[[0, 3]], 2)
    loss = model.loss_function(logits, labels, None, told, values)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels) + 0.5 * part)
    # Of a step of eight labelled rows, these four are the half.
    loss = model.loss_function(logits, labels, 8, told, values)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels) / 2 + 0.5 * part / 2)


def test_attributes_alone_and_those_that_the_model_has_not(make_model, rows, told):
    batch = {"input_ids": torch.stack([row["input_ids"] for row in rows[:5]])}
    model = make_model(fusion="text", **CCC, attribute_weight=2)
    outputs = model(**batch, attributes=told[1])
    torch.testing.assert_close(outputs.loss, 2 * model.attribute_loss(outputs.attributes, told[1], 5))
    for other in (make_model(fusion="text"), make_model(fusion="text", attributes=["valence"])):
        with pytest.raises(ValueError, match=r"attributes are \(5, 2\); give one column each: (None|\['valence'\])"):
            other(**batch, attributes=told[1])


@pytest.mark.parametrize("given", [[], [2], [0, 0]], ids=["none", "one", "all alike"])
def test_values_that_do_not_differ_teach_nothing(given, make_model, told):
    told, values = told
    alike = torch.full_like(values, torch.nan)
    alike[: len(given)] = values[given]
    loss = make_model(fusion="text", **CCC).attribute_loss(told, alike, 5)
    loss.backward()
    assert loss.item() == 0 and not told.grad.any()


def test_a_constant_answer_has_a_gradient(make_model, told):
    """Where every row is told the same, as by a head whose weights are 0."""
    constant = torch.full((5, 2), 2.0, requires_grad=True)
    loss = make_model(fusion="text", **CCC).attribute_loss(constant, told[1], 5)
    loss.backward()
    assert loss.item() == pytest.approx(1) and constant.grad.isfinite().all() and constant.grad.any()


def make_untouched_model(make_model, **fields):
    """One without dropout, so that only the way of batching can make a difference."""
    dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
    text_dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return make_model(
        fusion="early_fusion",
        audio_config=dict.fromkeys(dropouts, 0.0),
        text_config=dict.fromkeys(text_dropouts, 0.0),
        **fields,
    )


def train(model, rows, folder, batch_size, accumulation, steps=5):
    """The loss of each optimiser step, as the Trainer logs it."""
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation, max_steps=steps,
        learning_rate=1e-2, optim="sgd", logging_steps=1, save_strategy="no", use_cpu=True, report_to="none",
        train_sampling_strategy="sequential", disable_tqdm=True, remove_unused_columns=False,
        lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("variant", mostly_slow(VARIANTS, "plain", "weighted", "soft"))
def test_accumulation_gives_the_curve_and_the_weights_of_the_whole_batch(variant, make_model, rows, tmp_path):
    fields, is_soft = VARIANTS[variant]
    rows = soften(rows) if is_soft else with_attributes(rows) if "attributes" in fields else rows
    whole, parts = make_untouched_model(make_model, **fields), make_untouched_model(make_model, **fields)
    expected = train(whole, rows, tmp_path / "whole", batch_size=8, accumulation=1)
    losses = train(parts, rows, tmp_path / "parts", batch_size=1, accumulation=8)
    assert len(expected) == 5 and losses == pytest.approx(expected, abs=1e-5)
    for (name, weight), other in zip(whole.named_parameters(), parts.parameters()):
        torch.testing.assert_close(other, weight, atol=1e-5, rtol=0, msg=name)


TWO_PROCESSES = """
import json, sys
import torch
from transformers import HfArgumentParser, Trainer, TrainingArguments
from modeling_rsa_cfn import RsaCfnForSequenceClassification

arguments, = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
model = RsaCfnForSequenceClassification.from_pretrained("model")
trainer = Trainer(model, arguments, train_dataset=torch.load("rows.pt"))
trainer.train()
if trainer.is_world_process_zero():
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    json.dump({"losses": losses, "processes": arguments.world_size}, open("losses.json", "w"))
"""


# The CCC is that of the rows that a process sees at once, so it has them alike beside it.
@pytest.mark.parametrize(
    "fields, batch_size, accumulation",
    [(VARIANTS["weighted"][0], 8, 1), pytest.param(CCC, 2, 4, marks=pytest.mark.slow)],
    ids=["weighted", "ccc"],
)
def test_two_processes_give_the_losses_of_one(fields, batch_size, accumulation, make_model, rows, processes, tmp_path):
    rows = with_attributes(rows) if "attributes" in fields else rows
    model = make_untouched_model(make_model, **fields)
    model.save_pretrained(tmp_path / "model")
    torch.save(rows, tmp_path / "rows.pt")
    arguments = (
        "--use_cpu --output_dir out --max_steps 2 "
        "--per_device_train_batch_size 2 --gradient_accumulation_steps 2 --learning_rate 1e-2 --optim sgd "
        "--lr_scheduler_type constant --logging_steps 1 --save_strategy no --disable_tqdm True "
        "--train_sampling_strategy sequential --remove_unused_columns False"
    )
    repository = str(Path(__file__).parents[1])
    options = {"cwd": tmp_path, "num_processes": 2, "PYTHONPATH": repository}
    finished = processes.run("-c", TWO_PROCESSES, *arguments.split(), **options)
    assert finished.returncode == 0, finished.stderr
    report = json.loads((tmp_path / "losses.json").read_text())
    expected = train(model, rows, tmp_path / "one", batch_size, accumulation, steps=2)
    assert report["processes"] == 2
    assert report["losses"] == pytest.approx(expected, abs=1e-5)
