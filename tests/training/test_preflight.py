"""What two rows before training find: what would end a run in its first step, or be wrong in silence."""

import json
import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast, Wav2Vec2FeatureExtractor

from foundation.errors import InputError
from tests.slow import mostly_slow
from training.arguments import DataArguments, ModelArguments
from training.model import load_model
from training.preflight import preflight


TEXTS = ["안녕하세요정말반가워요", "정말", "반가워요정말"]
ALONE = SimpleNamespace(
    process_index=0,
    world_size=1,
    ddp_find_unused_parameters=None,
    activation_checkpointing_kwargs=None,
)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
SIZES |= {"vocab_size": 64, "max_position_embeddings": 66, "pad_token_id": 1}


@pytest.fixture
def folders(make_config, processor, tmp_path):
    """A function that writes an audio and a text backbone, and gives the arguments of a model of them."""

    def folders(family="roberta", fusion="text", audio=(), **fields):
        torch.manual_seed(0)
        text_config = AutoConfig.for_model(family, **SIZES | {"type_vocab_size": 4} | fields)
        for name, config in (("audio", make_config(audio_config=audio).audio_config), ("text", text_config)):
            AutoModel.from_config(config).save_pretrained(tmp_path / name)
        Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "audio")
        processor.tokenizer.save_pretrained(tmp_path / "text")
        return ModelArguments(str(fusion), str(tmp_path / "audio"), str(tmp_path / "text"))

    return folders


def check(model_args, texts=TEXTS, training_args=ALONE):
    loaded = load_model(model_args, DataArguments(max_text_tokens=16), ["calm", "upset"], texts)
    preflight(*loaded, texts, model_args, training_args)
    return loaded


def test_a_run_goes_on_as_if_nothing_had_been_tried(folders):
    """Also where a layer is left out at random, and SpecAugment masks by random numbers of numpy."""
    audio = {"layerdrop": 0.5, "mask_time_prob": 0.5, "apply_spec_augment": True}
    model_args = folders(fusion="early_fusion", audio=audio)
    model, processor = load_model(model_args, DataArguments(max_text_tokens=16), ["calm", "upset"], TEXTS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    config, was_training = model.config.to_dict(), model.training
    preflight(model, processor, TEXTS, model_args, ALONE)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]
    assert (model.config.to_dict(), model.training) == (config, was_training)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_the_head_of_attributes_has_a_part_in_the_answer(folders, caplog):
    model_args = folders(fusion="late_fusion")
    model_args.attributes = ["valence"]
    check(model_args)
    assert "have no part in the answer" not in caplog.text


READS_PADDING = "what it makes of a row depends on the padding beside it"
REFUSED = {
    "bart": ("is no encoder of text alone", {"d_model": 16}),
    "canine": (READS_PADDING, {}),
    "convbert": (READS_PADDING, {"embedding_size": 16, "head_ratio": 1, "conv_kernel_size": 3}),
    "fnet": (READS_PADDING, {}),
    "layoutlmv3": ("can't be loaded", {}),
    "lilt": ("can't be loaded", {}),
    "nystromformer": ("can't be loaded", {"num_landmarks": 4, "segment_means_seq_len": 8}),
    "t5": ("is no encoder of text alone", {"d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 2}),
    "yoso": (READS_PADDING, {}),
}


@pytest.mark.parametrize("family", mostly_slow(REFUSED, "fnet"))
def test_text_encoders_that_would_be_wrong_are_refused_in_one_line(family, folders, tmp_path):
    told, fields = REFUSED[family]
    with pytest.raises(InputError, match=f"^--text_model {tmp_path / 'text'}.* {told}") as error:
        check(folders(family, **fields))
    assert "; give " in str(error.value) and "\n" not in str(error.value)


def test_unknown_words_are_refused_or_counted(folders, tmp_path, caplog):
    model_args, name = folders(), f"--text_model {tmp_path / 'text'}"
    with pytest.raises(InputError, match=rf"^{name}: 93\.3% of the tokens .* unknown, such as weather안; give a model"):
        check(model_args, ["weather안", "weather안"[:7]])
    check(model_args, [*TEXTS * 5, "안녕?"])
    assert f"{name}: 1.0% of the tokens of the training texts are unknown, such as 안녕?" in caplog.text


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folders):
    with pytest.raises(InputError, match="has 9 tokens, and its tokenizer number 1[0-9]; give another model"):
        check(folders(vocab_size=9))


def test_weights_that_would_be_random_are_refused_and_others_counted(folders, tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO, "training")
    model_args = folders(fusion="early_fusion", audio={"mask_time_prob": 0.5})
    for name, harmless in (("audio", "masked_spec_embed"), ("text", "pooler.dense.weight")):
        weights = load_file(tmp_path / name / "model.safetensors")
        del weights[harmless]
        save_file(weights, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    check(model_args)
    assert f"--audio_model {tmp_path / 'audio'}: 53 of 54 tensors loaded." in caplog.text
    assert f"--text_model {tmp_path / 'text'}: 37 of 37 tensors loaded." in caplog.text
    assert "pooler" not in caplog.text + capfd.readouterr().err
    for number in range(2):
        del weights[f"encoder.layer.{number}.output.dense.weight"]
    save_file(weights, tmp_path / "text" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"^--text_model .* lacks 2 of the 37 tensors .*: encoder.layer.0.output.dense"
    ):
        check(model_args)


def test_a_decoder_without_a_pad_token_pads_by_its_end(folders, tmp_path):
    model_args = folders("gpt2", n_embd=16, n_layer=2, n_head=2)
    tokenizer = Tokenizer(models.WordLevel({"<end>": 0, "안": 5, "녕": 6}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", padding_side="left")
    fast.save_pretrained(tmp_path / "text")
    _, processor = check(model_args, ["안녕안녕", "안녕"])
    assert processor(text=["안녕안", "녕"])["input_ids"] == [[5, 6, 5], [6, 0, 0]]


@pytest.mark.slow
def test_processes_train_together_whatever_is_left_out(folders, prepared_dir, processes, tmp_path):
    """Layers of the audio at random, and weights of the text that have no part; what is refused is said once."""
    folders("longformer", audio={"layerdrop": 0.5}, attention_window=[4, 4])
    arguments = ["run_classification.py", "--dataset_name", str(prepared_dir), "--fusion", "early_fusion"]
    arguments += ["--audio_model", str(tmp_path / "audio"), "--text_model", str(tmp_path / "text")]
    arguments += "--max_text_tokens 16 --max_steps 6 --activation_checkpointing --use_cpu --output_dir".split()
    finished = processes.run(*arguments, str(tmp_path / "refused"), num_processes=2)
    assert finished.returncode == 2 and finished.stderr.count("tokens of the training texts are unknown") == 1
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 1}, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(tmp_path / "text")
    finished = processes.run(*arguments, str(tmp_path / "out"), num_processes=2)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("12 weights have no part in the answer and don't train: text_model.") == 1
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["eval_rows"] > 0
