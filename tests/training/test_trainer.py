"""The Trainer: batches, balanced drawing, and half precision that is real."""

import io
import json
import os
import traceback

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainingArguments, Wav2Vec2FeatureExtractor, set_seed

from foundation.errors import RunStopped
from processing_rsa_cfn import RsaCfnProcessor
from training.checkpoints import list_checkpoints
from training.trainer import RsaCfnDataCollator, RsaCfnTrainer


@pytest.fixture
def rows():
    """16 rows of noise between 0.1 and 0.4 s, of which the first 14 are of one class."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(16):
        buffer = io.BytesIO()
        samples = rng.uniform(-0.1, 0.1, rng.integers(1600, 6400))
        soundfile.write(buffer, samples, 16000, format="WAV")
        audio = {"bytes": buffer.getvalue(), "path": None}
        text = "정말" if index % 2 else "반가워요"
        rows.append({"audio": audio, "text": text, "label": int(index >= 14), "segment_id": f"Sess01_{index:02d}"})
    return Dataset.from_list(rows)


@pytest.fixture
def make_trainer(make_model, processor, rows, tmp_path):
    def make(batch_weighted_sampler=False, fusion="rsa_cfn", callbacks=None, ema_decay=0.0, **arguments):
        arguments = {
            "output_dir": str(tmp_path),
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
        } | arguments
        arguments |= {"remove_unused_columns": False, "label_names": ["labels"]}
        return RsaCfnTrainer(
            model=make_model(fusion=fusion),
            args=TrainingArguments(**arguments),
            data_collator=RsaCfnDataCollator(processor),
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=processor,
            batch_weighted_sampler=batch_weighted_sampler,
            callbacks=callbacks,
            ema_decay=ema_decay,
        )

    return make


def test_collator_pads_each_modality_to_its_own_length(rows, processor):
    batch = RsaCfnDataCollator(processor)([rows[0], rows[15]])
    lengths = [len(soundfile.read(io.BytesIO(rows[index]["audio"]["bytes"]))[0]) for index in (0, 15)]
    assert batch["audio_attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["attention_mask"].sum(dim=1).tolist() == [6, 4]
    assert batch["labels"].tolist() == [0, 1]


class ProcessRecordingCollator(RsaCfnDataCollator):
    def __call__(self, rows):
        return {**super().__call__(rows), "process": torch.tensor([os.getpid()] * len(rows))}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_make_the_batches(make_trainer, rows, processor, num_workers):
    trainer = make_trainer(dataloader_num_workers=num_workers, per_device_train_batch_size=4)
    trainer.data_collator = ProcessRecordingCollator(processor)
    for loader in (trainer.get_train_dataloader(), trainer.get_test_dataloader(rows)):
        batches = list(loader)
        assert sum(len(batch["labels"]) for batch in batches) == len(rows)
        processes = {process for batch in batches for process in batch["process"].tolist()}
        assert len(processes) == max(num_workers, 1)
        assert (os.getpid() in processes) == (num_workers == 0)


@pytest.mark.parametrize("target", [1, [0.25, 0.75, 0, 0, 0, 0, 0]], ids=["label", "shares"])
def test_a_row_that_turned_bad_keeps_its_place_and_has_no_part(target, rows, processor, make_model):
    column = "label" if target == 1 else "label_shares"
    good = [{**row, column: target} for row in rows.select(range(3))]
    bad = {**good[1], "audio": {"bytes": good[1]["audio"]["bytes"][:-2], "path": None}}
    collate, model = RsaCfnDataCollator(processor), make_model(fusion="early_fusion")
    assert "unread" not in collate(good)
    batch = collate([good[0], bad, good[2]])
    assert batch.pop("unread") == {"Sess01_01": "audio truncated"}
    expected = model(**collate([good[0], good[2]])).loss
    torch.testing.assert_close(model(**batch).loss, expected, atol=1e-5, rtol=0)
    # As the Trainer counts them.
    counted = (batch["labels"] != -100).sum()
    torch.testing.assert_close(model(**batch, num_items_in_batch=counted).loss, expected, atol=1e-5, rtol=0)
    batch = collate([bad, bad])
    del batch["unread"]
    for counted in (None, torch.tensor(0), 0):
        loss = model(**batch, num_items_in_batch=counted).loss
        loss.backward()
        assert loss == 0 and not any(weight.grad.any() for weight in model.parameters() if weight.grad is not None)


@pytest.mark.parametrize("arguments", [{}, {"dataloader_num_workers": 2, "gradient_accumulation_steps": 2}], ids=str)
def test_rows_that_turn_bad_in_training_end_no_run(arguments, make_trainer, rows, tmp_path, caplog):
    for number in range(5):
        (tmp_path / f"{number}.wav").write_bytes(rows[number]["audio"]["bytes"])
    paths = [{"bytes": None, "path": str(tmp_path / f"{number}.wav")} for number in range(5)]
    trainer = make_trainer(num_train_epochs=2, per_device_train_batch_size=2, seed=1, **arguments)
    trainer.train_dataset = rows.remove_columns("audio").add_column("audio", paths + rows["audio"][5:])
    (tmp_path / "1.wav").unlink()
    (tmp_path / "3.wav").write_bytes((tmp_path / "3.wav").read_bytes()[:-2])
    metrics = trainer.train().metrics
    assert metrics["train_skipped_rows"] == 2 and np.isfinite(metrics["train_loss"])
    told = [record.getMessage() for record in caplog.records if record.name == "training.trainer"]
    assert sorted(told[:2]) == [
        "Sess01_01 is skipped in training, audio missing",
        "Sess01_03 is skipped in training, audio truncated",
    ]
    assert told[2:] == ["2 rows could not be read during training and were skipped: Sess01_01, Sess01_03"]


def test_collator_leaves_a_modality_out(rows, processor):
    assert "input_ids" not in RsaCfnDataCollator(processor, "audio")([rows[0]])
    assert "input_values" not in RsaCfnDataCollator(processor, "text")([rows[0]])


@pytest.fixture
def ramps(processor):
    """
    A function that gives the first sample of each clip in each epoch of training and of scoring, of rows that hold the
    ramp 0 to 99 and are cropped to 10 samples.
    """
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    short = RsaCfnProcessor(extractor, processor.tokenizer, max_audio_seconds=10 / 16000)
    row = {
        "audio": {"array": [float(sample) for sample in range(100)], "sampling_rate": 16000},
        "text": "정말",
        "label": 0,
    }

    def firsts(make_trainer, train_crop, num_workers, seed=0):
        trainer = make_trainer(
            dataloader_num_workers=num_workers, seed=seed, per_device_train_batch_size=4, num_train_epochs=2
        )
        rows = [{**row, "segment_id": f"Sess01_{index:02d}"} for index in range(16)]
        trainer.train_dataset = trainer.eval_dataset = Dataset.from_list(rows)
        trainer.data_collator = RsaCfnDataCollator(short)
        trainer.train_data_collator = RsaCfnDataCollator(short, audio_crop=train_crop)
        set_seed(seed)
        loader, epochs = trainer.get_train_dataloader(), []
        for epoch in range(2):
            loader.collate_fn.set_epoch(epoch)
            epochs.append(torch.cat([batch["input_values"][:, 0] for batch in loader]).tolist())
        scored = torch.cat([batch["input_values"][:, 0] for batch in trainer.get_eval_dataloader()]).tolist()
        return *epochs, scored

    return firsts


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_crops_elsewhere_in_each_epoch_and_scoring_at_the_centre(ramps, make_trainer, num_workers):
    first, second, scored = ramps(make_trainer, "random", num_workers)
    assert scored == [45] * 16
    assert first != second
    # Neither do two workers draw the same.
    assert all(len(set(epoch)) > 8 and 0 <= min(epoch) and max(epoch) <= 90 for epoch in (first, second))
    assert ramps(make_trainer, "random", num_workers) == (first, second, scored)
    assert ramps(make_trainer, "random", num_workers, seed=1)[0] != first
    assert ramps(make_trainer, None, num_workers)[:2] == ([45] * 16, [45] * 16)


@pytest.fixture
def train(make_trainer, rows, processor, tmp_path):
    """A function that trains two epochs of four steps, with all that is random in training, and gives the trainer."""
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_audio_seconds=0.05)
    timed = rows.add_column("duration", [len(audio["bytes"]) / 32000 for audio in rows["audio"]])

    def train(resume=None, **arguments):
        arguments = {
            "save_strategy": "steps",
            "save_steps": 1,
            "logging_strategy": "steps",
            "logging_steps": 3,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
        } | arguments
        set_seed(7)
        trainer = make_trainer(**arguments)
        trainer.model.config.modality_dropout = 0.3
        trainer.train_dataset = trainer.eval_dataset = timed
        trainer.train_data_collator = RsaCfnDataCollator(short, audio_crop="random")
        trainer.train(resume_from_checkpoint=resume and str(tmp_path / f"checkpoint-{resume}"))
        return trainer

    return train


def assert_same_run(trainer, other):
    weights = other.model.state_dict()
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weights[name], weight), name
    history, others = (
        [{name: value for name, value in entry.items() if not name.endswith(("_runtime", "_second"))} for entry in log]
        for log in (trainer.state.log_history, other.state.log_history)
    )
    assert history == others
    assert trainer.state.total_flos == other.state.total_flos


@pytest.mark.parametrize(
    "arguments",
    [
        {"dataloader_num_workers": 2},
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
        {"train_sampling_strategy": "group_by_length", "length_column_name": "duration"},
        {"batch_weighted_sampler": True, "lr_scheduler_type": "cosine"},
        {"fp16": True},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
        {"eval_strategy": "epoch", "logging_strategy": "epoch"},
        pytest.param({"eval_strategy": "epoch", "ema_decay": 0.9, "fp16": True}, marks=pytest.mark.slow),
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_a_run_resumed_within_an_epoch_is_the_unbroken_one(arguments, train):
    assert_same_run(train(**arguments), train(resume=6, **arguments))


def test_a_run_can_be_resumed_from_each_of_its_steps(train):
    whole = train(eval_strategy="epoch", logging_strategy="epoch")
    assert whole.state.log_history[0]["loss"] != whole.state.log_history[2]["loss"]
    for step in (1, 4, 5, 8):
        assert_same_run(whole, train(resume=step, eval_strategy="epoch", logging_strategy="epoch"))


def test_the_average_of_the_weights_is_scored_and_saved_and_the_weights_train_on(train, tmp_path):
    """Of the few first steps, less of the average is kept than is asked for."""
    schedule = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
    plain = train(**schedule)
    steps = [load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in range(1, 4)]
    trainer = train(**schedule, ema_decay=0.2, load_best_model_at_end=True)
    average = dict(steps[0])
    for number, weights in enumerate(steps, start=1):
        decay = min(0.2, number / (9 + number)) if number > 1 else 0  # 0, 2 / 11, 0.2
        average = {name: decay * average[name] + (1 - decay) * weight for name, weight in weights.items()}
        saved = load_file(tmp_path / f"checkpoint-{number}" / "model.safetensors")
        assert all(torch.allclose(saved[name], weight, atol=1e-6) for name, weight in average.items())
    losses, plain_losses = (
        [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry] for run in (trainer, plain)
    )
    assert losses[0] == plain_losses[0] and losses[1:] != plain_losses[1:]
    best = load_file(tmp_path / f"checkpoint-{trainer.state.best_global_step}" / "model.safetensors")
    trainer.save_model(tmp_path / "saved")
    last = load_file(tmp_path / "saved" / "model.safetensors")
    assert all(torch.equal(last[name], weight) for name, weight in best.items())
    assert trainer.evaluate()["eval_loss"] == losses[trainer.state.best_global_step - 1]


def test_a_run_of_few_steps_is_not_lengthened_by_resuming_it(train):
    """Its last step is within an epoch."""
    assert_same_run(train(max_steps=3), train(max_steps=3, resume=3))


def test_early_stopping_counts_on_where_it_was(train):
    schedule = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "learning_rate": 0.0}
    whole = train(callbacks=[EarlyStoppingCallback(3)], **schedule)
    # The score never gets better: that of the first step is the best.
    assert (whole.state.global_step, whole.state.best_global_step) == (4, 1)
    for step in (2, 3, 4):
        assert_same_run(whole, train(resume=step, callbacks=[EarlyStoppingCallback(3)], **schedule))
    # What is given now counts, also where nothing was then.
    assert train(resume=2, callbacks=[EarlyStoppingCallback(1)], **schedule).state.global_step == 2
    train(**schedule, max_steps=2)
    assert train(resume=2, callbacks=[EarlyStoppingCallback(3)], **schedule).state.global_step == 5


def test_each_backbone_has_its_learning_rate(make_trainer):
    trainer = make_trainer(learning_rate=1e-2, weight_decay=0.1, max_steps=1)
    trainer.learning_rates = {"audio_model": 1e-3, "text_model": 0.0}
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    optimizer = trainer.create_optimizer()
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    rates = {"audio_model": 1e-3, "text_model": 0.0, "fusion": 1e-2}
    seen = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == rates[names[parameter].split(".")[0]], names[parameter]
            seen.append(names[parameter])
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert sorted(seen) == sorted(trained)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        if name.startswith("text_model."):
            assert torch.equal(parameter, before[name]), name
    assert not torch.equal(trainer.model.fusion.classifier_head.weight, before["fusion.classifier_head.weight"])


def test_weighted_sampler_draws_each_class_as_often(make_trainer, rows):
    sampler = make_trainer(batch_weighted_sampler=True)._get_train_sampler()
    drawn = np.array([rows["label"][index] for _ in range(50) for index in sampler])
    assert len(drawn) == 50 * 16
    assert abs(drawn.mean() - 0.5) < 0.06
    plain = sorted(make_trainer()._get_train_sampler())
    assert plain == list(range(16))


# Writes, for each epoch, the rows that a process is given, and leaves each process its own random state.
DRAW = """
import json, sys
from types import SimpleNamespace
import torch
from datasets import Dataset
from transformers import TrainingArguments
from training.trainer import RsaCfnTrainer

class Model(torch.nn.Linear):
    def forward(self, row, labels):
        torch.rand(1 + row[0])
        return {"loss": super().forward(row[:, None].float()).mean()}

def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in ("row", "labels")}

class Trainer(RsaCfnTrainer):
    def training_step(self, model, inputs, *args):
        seen.setdefault(int(self.state.epoch), []).append(inputs["row"].tolist())
        return super().training_step(model, inputs, *args)

shares = [[0.75, 0.25] if row < 24 else [0.0, 1.0] for row in range(32)]
columns = {"row": list(range(32)), "label_shares": shares, "labels": [0] * 32}
columns["duration"] = [row % 8 for row in range(32)]
args = TrainingArguments(sys.argv[1], use_cpu=True, num_train_epochs=2, per_device_train_batch_size=4, seed=7,
    save_strategy="steps", save_steps=6, remove_unused_columns=False, disable_tqdm=True, logging_strategy="no",
    train_sampling_strategy=sys.argv[2].replace("weighted", "random"), length_column_name="duration")
told = []
for checkpoint in (None, f"{sys.argv[1]}/checkpoint-6"):
    seen = {}
    trainer = Trainer(Model(1, 1), args, data_collator=collate, train_dataset=Dataset.from_dict(columns),
        processing_class=SimpleNamespace(model_input_names=["row"], max_audio_seconds=6, save_pretrained=str),
        batch_weighted_sampler=sys.argv[2] == "weighted")
    trainer.train(resume_from_checkpoint=checkpoint)
    told.append(seen)
with open(f"{sys.argv[1]}/{args.process_index}.json", "w") as file:
    json.dump([told[0][0], told[0][1], told[1][1]], file)
torch.distributed.destroy_process_group()
"""


@pytest.fixture
def draw(processes, tmp_path):
    """A function that gives, for each epoch, the rows of the batches that two processes are given in turn."""

    def draw(strategy):
        finished = processes.run("-c", DRAW, tmp_path, strategy, num_processes=2)
        assert finished.returncode == 0, finished.stderr
        first, second = (json.loads((tmp_path / f"{process}.json").read_text()) for process in range(2))
        for epoch in range(2):
            assert [len(first[epoch]), len(second[epoch])] == [4, 4]
        # Resumed after two steps of the second epoch.
        assert (first[2], second[2]) == (first[1][2:], second[1][2:])
        return [[batch for pair in zip(first[epoch], second[epoch]) for batch in pair] for epoch in range(2)]

    return draw


def test_two_processes_share_one_drawn_sequence(draw):
    # 18 and 14 are the sums of the shares of each class.
    weights = torch.tensor([0.75 / 18 + 0.25 / 14] * 24 + [1 / 14] * 8, dtype=torch.float64)
    epochs = draw("weighted")
    for epoch in range(2):
        # Dealt out batch by batch: together they have each drawn row, and none of them twice.
        generator = torch.Generator().manual_seed(7 + epoch)
        drawn = torch.multinomial(weights, 32, replacement=True, generator=generator).tolist()
        assert [row for batch in epochs[epoch] for row in batch] == drawn
    assert epochs[0][0] != epochs[0][1]


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_two_processes_have_every_row_once_in_each_epoch(strategy, draw):
    epochs = draw(strategy)
    assert epochs[0] != epochs[1]
    for batches in epochs:
        assert sorted(row for batch in batches for row in batch) == list(range(32))
    if strategy == "group_by_length":
        spread = [max(row % 8 for row in batch) - min(row % 8 for row in batch) for batch in epochs[1]]
        assert sum(spread) / len(spread) < 4


def test_the_draw_depends_on_seed_and_epoch_alone(make_trainer):
    first, again = (make_trainer(batch_weighted_sampler=True, seed=3)._get_train_sampler() for _ in range(2))
    epochs = []
    for epoch in range(3):
        first.set_epoch(epoch)
        epochs.append(list(first))
    assert len({tuple(rows) for rows in epochs}) == 3
    # As a run that is resumed after two epochs.
    again.set_epoch(2)
    assert list(again) == epochs[2]
    assert list(make_trainer(batch_weighted_sampler=True, seed=4)._get_train_sampler()) != epochs[0]


@pytest.mark.parametrize("precision, dtype", [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_on_a_cpu_is_half_precision(precision, dtype, make_trainer):
    trainer = make_trainer(max_steps=3, learning_rate=1e-3, **{precision: True})
    seen = set()
    trainer.model.fusion.classifier_head.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    before = trainer.model.fusion.classifier_head.weight.detach().clone()
    trained = trainer.train()
    assert seen == {dtype}
    assert np.isfinite(trained.training_loss)
    assert not torch.equal(trainer.model.fusion.classifier_head.weight, before)
    assert trainer.model.fusion.classifier_head.weight.dtype == torch.float32


class PoisoningCollator(RsaCfnDataCollator):
    """The samples of one row overflow, as they might in an encoder."""

    poisoned = None

    def __call__(self, rows):
        batch = super().__call__(rows)
        batch["input_values"][[row["segment_id"] == self.poisoned for row in rows]] = torch.inf
        return batch


@pytest.mark.parametrize("arguments", [{}, {"fp16": True}, {"dataloader_num_workers": 2}], ids=str)
def test_a_loss_that_is_not_finite_stops_the_run_with_the_rows(arguments, make_trainer, processor, tmp_path):
    trainer = make_trainer(per_device_train_batch_size=4, save_strategy="steps", save_steps=1, seed=3, **arguments)
    trainer.train_data_collator = PoisoningCollator(processor)
    batches = [batch["segment_id"] for batch in trainer.get_train_dataloader()]
    trainer.train_data_collator.poisoned = batches[2][1]
    with pytest.raises(RunStopped) as stopped:
        trainer.train()
    assert stopped.value.exit_code == 3
    # Workers that a loop in the garbage holds are waited for, 5 s each.
    traceback.clear_frames(stopped.tb)
    message = str(stopped.value)
    assert message.startswith("the loss is nan in optimizer step 3: training stops") and "\n" not in message
    assert message.endswith(f"The batch holds {', '.join(batches[2])}")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2"]


def test_gradients_that_overflow_under_a_loss_scale_stop_nothing(make_trainer):
    trainer = make_trainer(fp16=True, max_steps=4, per_device_train_batch_size=4)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = trainer.model.fusion.classifier_head.weight.detach().clone()
    assert np.isfinite(trainer.train().training_loss)
    assert trainer.accelerator.scaler.get_scale() < 2.0**40
    assert torch.equal(trainer.model.fusion.classifier_head.weight, before)


def test_prediction_scores_every_row_in_order(make_trainer, rows, processor):
    """Also the last, partial batch; and each row as it scores alone."""
    trainer = make_trainer(per_device_eval_batch_size=5)
    output = trainer.predict(rows)
    assert output.label_ids.tolist() == rows["label"][:]
    with torch.no_grad():
        alone = [trainer.model(**processor(audio=[r["audio"]], text=[r["text"]], return_tensors="pt")) for r in rows]
    np.testing.assert_allclose(output.predictions, np.concatenate([one.logits for one in alone]), atol=1e-5)


def test_training_learns_what_the_words_say(make_trainer, rows):
    trainer = make_trainer(fusion="text", num_train_epochs=15, learning_rate=1e-2, per_device_train_batch_size=4)
    labels = [int(text == "정말") for text in rows["text"]]
    trainer.train_dataset = trainer.eval_dataset = rows.remove_columns("label").add_column("label", labels)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 10


def test_grouping_by_length_leaves_predictions_in_order(make_trainer, rows):
    durations = [soundfile.info(io.BytesIO(audio["bytes"])).duration for audio in rows["audio"]]
    timed = rows.add_column("duration", durations)
    trainer = make_trainer(
        train_sampling_strategy="group_by_length", length_column_name="duration", per_device_eval_batch_size=4
    )
    trainer.train_dataset = timed
    grouped = list(trainer._get_train_sampler())
    assert sorted(grouped) == list(range(16)) and grouped != list(range(16))
    plain = make_trainer().predict(rows)
    grouped = trainer.predict(timed)
    assert grouped.label_ids.tolist() == rows["label"][:]
    np.testing.assert_allclose(grouped.predictions, plain.predictions, atol=1e-5)


def test_batches_are_grouped_by_the_length_that_is_left_of_a_clip(make_trainer, rows, processor):
    """Clips over the limit are all alike, so each epoch has others of them together."""
    durations = [0.1, 9.0, 0.2, 8.0] * 4
    trainer = make_trainer(
        train_sampling_strategy="group_by_length", length_column_name="duration", per_device_train_batch_size=16
    )
    trainer.train_dataset = rows.add_column("duration", durations)
    sampler, epochs = trainer._get_train_sampler(), []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    # One megabatch: the long half, shuffled, comes first, then those of 0.2 s and those of 0.1 s.
    for epoch in epochs:
        seconds = [durations[row] for row in epoch]
        assert min(seconds[:8]) == 8.0 and seconds[8:] == [0.2] * 4 + [0.1] * 4
    assert len({tuple(durations[row] for row in epoch[:8]) for epoch in epochs}) > 4
    trainer.batch_weighted_sampler = True
    assert isinstance(trainer._get_train_sampler().sampler, torch.utils.data.WeightedRandomSampler)
