"""A temperature is found again, and the model's probabilities are by it wherever they are asked for."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from foundation.errors import InputError
from foundation.files import read_json
from run_classification import main as train
from training.calibration import fit_temperature
from training.parsing import parse_arguments


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(20_000, 5))
    draws = logits + rng.gumbel(size=logits.shape)  # labels by the softmax of the logits
    assert fit_temperature(logits * temperature, draws.argmax(axis=1)) == pytest.approx(temperature, rel=0.05)


def test_rows_that_are_all_right_have_a_bounded_temperature():
    assert 0.01 <= fit_temperature(10 * np.eye(3), np.arange(3)) < 0.5


def test_a_model_divides_its_logits_by_it_but_in_training(make_model, processor, clips, texts):
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    model = make_model(fusion="early_fusion")
    with torch.no_grad():
        logits = model(**batch).logits
        model.config.temperature = 2.5
        torch.testing.assert_close(model(**batch).logits, logits / 2.5)
        torch.testing.assert_close(model.train()(**batch).logits.std(), logits.std(), atol=logits.std() / 4, rtol=0)


@pytest.mark.slow
def test_a_run_fits_it_on_the_validation_rows(prepared_dir, tmp_path):
    given = f"--fusion text --text_model tiny --audio_model tiny --dataset_name {prepared_dir} --use_cpu --calibrate"
    arguments = [*given.split(), "validation", "--num_train_epochs", "1"]
    with pytest.raises(InputError, match="--calibrate validation needs validation rows; give --eval_strategy epoch"):
        none = ["--split", "paper", "--eval_strategy", "no", "--output_dir", str(tmp_path / "none")]
        train(*parse_arguments([*arguments, *none]))
    folds = ["--num_folds", "3", "--eval_strategy", "epoch", "--output_dir", str(tmp_path / "model")]
    train(*parse_arguments([*arguments, *folds]))
    temperature = read_json(tmp_path / "model" / "config.json")["temperature"]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert loaded.config.temperature == temperature != 1
