"""The model of a run: tiny, pretrained from folders, or saved; and what can't be loaded."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Wav2Vec2FeatureExtractor, pipeline

import run_classification
from configuration_rsa_cfn import FUSIONS
from foundation.errors import InputError
from foundation.files import holds_files
from training.arguments import AUDIO_MODEL, LIMITS, TEXT_MODEL, DataArguments, ModelArguments
from training.features import hash_weights
from training.model import check_models, load_model, load_saved, max_audio_frames, saved_classes, train_tokenizer
from training.parsing import parse_arguments


NAMES = ["calm", "upset"]
TEXTS = ["오늘은 날씨가 좋아요", "정말 화가 났어요", "내일 다시 만나요"]
TINY = {"audio_model": "tiny", "text_model": "tiny"}


def test_tokenizer_is_deterministic_and_wraps_a_text():
    first, second = train_tokenizer(TEXTS), train_tokenizer(TEXTS)
    ids = first("화가 좋아요")["input_ids"]
    assert ids == second("화가 좋아요")["input_ids"]
    assert (ids[0], ids[-1]) == (first.bos_token_id, first.eos_token_id)
    assert first.decode(ids, skip_special_tokens=True).replace(" ", "") == "화가좋아요"
    assert first("")["input_ids"] == [first.bos_token_id, first.eos_token_id]


def test_tiny_model_takes_the_longest_input_the_limits_allow():
    data_args = DataArguments(max_audio_seconds=0.5, max_text_tokens=12)
    model, processor = load_model(ModelArguments(**TINY), data_args, NAMES, TEXTS)
    assert model.config.id2label == {0: "calm", 1: "upset"}
    assert all(parameter.requires_grad for parameter in model.audio_model.feature_extractor.parameters())
    batch = processor(audio=[torch.randn(32000)], text=[" ".join(TEXTS * 3)], return_tensors="pt")
    assert batch["input_values"].shape == (1, 8000) and batch["input_ids"].shape == (1, 12)
    assert torch.isfinite(model(**batch).logits).all()


def test_a_seed_stands_for_the_same_tiny_backbones_whatever_the_fusion():
    digests = {"audio": set(), "text": set()}
    for fusion in FUSIONS:
        torch.manual_seed(3)
        model, _ = load_model(ModelArguments(**TINY, fusion=fusion), DataArguments(max_text_tokens=12), NAMES, TEXTS)
        for modality in model.fusion.modalities:
            digests[modality].add(hash_weights(getattr(model, f"{modality}_model")))
    assert [len(found) for found in digests.values()] == [1, 1]


@pytest.fixture
def backbones(make_model, processor, tmp_path):
    """A model whose backbones are in the folders `audio` and `text`."""
    model = make_model()
    model.audio_model.save_pretrained(tmp_path / "audio")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "audio")
    model.text_model.save_pretrained(tmp_path / "text")
    processor.tokenizer.save_pretrained(tmp_path / "text")
    return model


def test_pretrained_backbones_come_from_folders(backbones, tmp_path):
    model = backbones
    arguments = ModelArguments(
        audio_model=str(tmp_path / "audio"),
        text_model=str(tmp_path / "text"),
        fusion="early_fusion",
        pooling_mode="max",
    )
    loaded, loaded_processor = load_model(arguments, DataArguments(max_text_tokens=16), NAMES, TEXTS)
    assert (loaded.config.fusion, loaded.config.pooling_mode, loaded.config.num_labels) == ("early_fusion", "max", 2)
    assert not any(parameter.requires_grad for parameter in loaded.audio_model.feature_extractor.parameters())
    for name, weight in model.text_model.state_dict().items():
        assert torch.equal(loaded.text_model.state_dict()[name], weight), name
    assert "audio_attention_mask" in loaded_processor(audio=[torch.randn(800)], return_tensors="pt")


@pytest.fixture
def saved(tmp_path):
    """A function that saves a tiny model, and loads it as the arguments of a command line say."""
    folder = tmp_path / "saved"

    def saved(arguments="", labels=NAMES, class_weights=None, **fields):
        if not folder.exists():
            limits = {name: fields.pop(name) for name in LIMITS if name in fields}
            data_args = DataArguments(**limits)
            model, processor = load_model(
                ModelArguments(**TINY, **fields), data_args, NAMES, TEXTS, class_weights=class_weights
            )
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        given = ["--model_name_or_path", str(folder), *arguments.split(), "--output_dir", str(tmp_path / "out")]
        return load_model(*parse_arguments(given)[:2], labels, TEXTS)

    return saved


def test_saved_model_goes_on(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run the folder's code"))
    loaded, _ = saved(class_weights=[0.5, 1.5], label_smoothing=0.1)
    loaded.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    for name, weight in load_file(tmp_path / "saved" / "model.safetensors").items():
        assert torch.equal(again[name], weight), name
    assert (loaded.config.class_weights, loaded.config.label_smoothing) == ([0.5, 1.5], 0.1)
    other, _ = saved("--modality_dropout 0.2 --freeze_text_encoder --label_smoothing 0")
    assert (other.config.modality_dropout, other.config.label_smoothing) == (0.2, 0)
    assert not any(parameter.requires_grad for parameter in other.text_model.parameters())
    with pytest.raises(InputError, match="knows the classes calm, upset; the dataset has calm, cross"):
        saved(labels=["calm", "cross"])


def test_frozen_backbones_of_a_saved_model_train_when_that_is_said(saved):
    """What is cached as features first, and fine-tuned then."""
    frozen, _ = saved(freeze_audio_encoder=True, freeze_text_encoder=True)
    trained, _ = saved("--freeze_audio_encoder false --freeze_text_encoder false")
    for modality in ("audio", "text"):
        parameters = dict(getattr(trained, f"{modality}_model").named_parameters())
        # SpecAugment is off, so nothing would reach it.
        trains = {name for name, parameter in parameters.items() if parameter.requires_grad}
        assert trains == set(parameters) - {"masked_spec_embed"}
        assert not any(parameter.requires_grad for parameter in getattr(frozen, f"{modality}_model").parameters())
    trained.train()
    assert trained.audio_model.training and trained.text_model.training


@pytest.mark.parametrize("fusion", ["early_fusion", "mlp_mixer"])
def test_a_saved_model_takes_other_limits(fusion, saved):
    model, processor = saved(fusion=fusion, max_audio_seconds=1, max_text_tokens=12)
    assert (processor.max_audio_seconds, processor.max_text_tokens) == (1, 12)
    frames = model.config.max_audio_frames
    model, processor = saved("--max_audio_seconds 0.5 --max_text_tokens 8")
    assert (processor.max_audio_seconds, processor.max_text_tokens) == (0.5, 8)
    # The mixer's weights are made for a length, up to which it pads.
    expected = (12, frames) if fusion == "mlp_mixer" else (8, max_audio_frames(model.config.audio_config, 0.5))
    assert (model.config.max_text_tokens, model.config.max_audio_frames) == expected
    batch = processor(audio=[torch.randn(32000)], text=[" ".join(TEXTS * 3)], return_tensors="pt")
    assert batch["input_values"].shape == (1, 8000) and batch["input_ids"].shape == (1, 8)
    assert torch.isfinite(model(**batch).logits).all()


def test_a_text_prefix_is_as_it_was_saved_unless_it_is_given(saved):
    for arguments, prefix in (("", "내일 "), ("--text_prefix 정말", "정말")):
        _, processor = saved(arguments, text_prefix="내일 ")
        assert processor.text_prefix == prefix
        prefixed = processor(text="만나요")["input_ids"]
        assert prefixed == [processor.tokenizer(f"{prefix}만나요")["input_ids"]]


def test_a_truncated_saved_model_is_said_in_one_line(tmp_path):
    model, processor = load_model(ModelArguments(**TINY), DataArguments(), NAMES, TEXTS)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 1000)
    arguments = ModelArguments(model_name_or_path=str(tmp_path))
    with pytest.raises(InputError, match=f"--model_name_or_path {tmp_path} can't be loaded; give a folder") as error:
        load_model(arguments, DataArguments(), NAMES, TEXTS)
    assert "\n" not in str(error.value)


def test_options_reach_the_configuration():
    arguments = ModelArguments(
        **TINY, fusion="hybrid_fusion", cross_fusion_rank=2, modality_dropout=0.3, label_smoothing=0.1,
        use_weighted_layer_sum=True, freeze_text_encoder=True, freeze_audio_layers=1,
    )  # fmt: skip
    model, _ = load_model(arguments, DataArguments(), NAMES, TEXTS, class_weights=[0.5, 1.5])
    config = model.config
    assert (config.cross_fusion_rank, config.modality_dropout, config.label_smoothing) == (2, 0.3, 0.1)
    assert config.class_weights == [0.5, 1.5]
    assert model.audio_layer_weights.shape == (3,)
    assert not any(parameter.requires_grad for parameter in model.text_model.parameters())
    trains = {name.split(".")[2] for name, p in model.audio_model.encoder.named_parameters("e") if p.requires_grad}
    assert trains & {"0", "1"} == {"1"}


def test_what_is_scored_of_a_long_clip_is_a_matter_of_the_processor(saved):
    for given, kept in (("random", "center"), ("head", "head")):
        assert load_model(ModelArguments(**TINY), DataArguments(audio_crop=given), NAMES, TEXTS)[1].audio_crop == kept
    for arguments, kept in (("", "head"), ("--audio_crop random", "center"), ("--audio_crop head", "head")):
        assert saved(arguments, audio_crop="head")[1].audio_crop == kept


def test_the_mixer_is_made_for_the_longest_clip():
    data_args = DataArguments(max_audio_seconds=0.5, max_text_tokens=12)
    model, processor = load_model(ModelArguments(**TINY, fusion="mlp_mixer"), data_args, NAMES, TEXTS)
    batch = processor(audio=[torch.randn(32000)], text=TEXTS[:1], return_tensors="pt")
    assert model(**batch).logits.shape == (1, 2)
    assert model.audio_model(batch["input_values"]).last_hidden_state.shape[1] == model.config.max_audio_frames


def test_layers_that_are_not_there_are_said_in_one_line():
    with pytest.raises(InputError, match="^--freeze_text_layers=3 is out of range; text_config has 2 layers.*$"):
        load_model(ModelArguments(**TINY, freeze_text_layers=3), DataArguments(), NAMES, TEXTS)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--audio_model no/such --text_model text", "--audio_model no/such is no folder here and can't be reached"),
        ("--audio_model audio --text_model no/such", "--text_model no/such is no folder here and can't be reached"),
        ("--audio_model text --text_model text", "--audio_model text can't be loaded; give a model of the"),
        ("--audio_model audio --text_model audio", "model_type='wav2vec2' is no encoder of text alone"),
        ("--audio_model audio --text_model empty", "--text_model empty can't be loaded; give a text encoder"),
        ("--audio_model audio --text_model text --max_text_tokens 2000000", "is more than text takes; give at most 64"),
        ("--audio_model audio --text_model light", "(FileNotFoundError: there is no model.safetensors, nor weights"),
        ("--audio_model tiny --text_model text", "--audio_model tiny and --text_model text don't go together"),
    ],
)
def test_backbones_that_cannot_be_loaded_are_told_before_rows_are_read(
    arguments, message, backbones, processor, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    backbones.text_model.config.save_pretrained("light")
    for folder in ("text", "light"):
        processor.tokenizer.model_max_length = 64
        processor.tokenizer.save_pretrained(folder)
    monkeypatch.setattr(run_classification, "load_splits", lambda *_, **__: pytest.fail("rows were read"))
    assert run_classification.run([*arguments.split(), "--dataset_name", "data/speech"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_good_backbones_are_none_that_are_refused(backbones, tmp_path):
    arguments = ModelArguments(audio_model=str(tmp_path / "audio"), text_model=str(tmp_path / "text"))
    assert check_models(arguments, DataArguments(max_text_tokens=16)) is None


def test_the_languages_of_the_default_backbones_are_said_of_own_data(monkeypatch, caplog):
    monkeypatch.setattr("training.model._read_backbones", lambda *_: None)
    caplog.set_level("INFO")
    default = {"audio_model": AUDIO_MODEL, "text_model": TEXT_MODEL}
    for name, other in (("data/demo", {}), ("data/kemdy20", {}), ("data/speech", {"text_model": "some/other"})):
        check_models(ModelArguments(**default | other), DataArguments(name))
    assert not caplog.records
    check_models(ModelArguments(**default), DataArguments("data/speech"))
    assert "hears English" in caplog.text and "reads Korean; for another language give --audio_model" in caplog.text


@pytest.mark.parametrize("damage, message", [(False, "--asr_model no/such is no folder here"), (True, "no model.safe")])
def test_models_of_a_prediction_are_looked_at_before_files_are_read(
    damage, message, saved, tmp_path, monkeypatch, capsys
):
    saved()
    capsys.readouterr()
    if damage:
        (tmp_path / "saved" / "model.safetensors").unlink()
    monkeypatch.setattr("training.prediction.read_rows", lambda *_: pytest.fail("files were read"))
    arguments = ["--do_predict", "--model_name_or_path", str(tmp_path / "saved"), "--predict_file", str(tmp_path)]
    recogniser = [] if damage else ["--asr_model", "no/such"]
    assert run_classification.run([*arguments, *recogniser, "--output_dir", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not holds_files(tmp_path / "out")


def spoiled(weights: dict, kind: str) -> dict:
    name = "fusion.classifier.0.weight"
    name = name if name in weights else next(n for n in weights if n.startswith("fusion") and weights[n].dim() == 2)
    if kind == "missing":
        return {other: weight for other, weight in weights.items() if other != name}
    return weights | ({"fusion.more": torch.zeros(1)} if kind == "unexpected" else {name: torch.zeros(1, 1)})


@pytest.mark.parametrize("kind", ["missing", "unexpected", "of another size"])
def test_a_checkpoint_of_other_weights_is_refused_at_every_door(kind, make_model, processor, tmp_path):
    make_model().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(spoiled(weights, kind), tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = rf"{tmp_path} holds other weights than its configuration asks for: 1 {kind} \(fusion\."
    with pytest.raises(InputError, match=message) as error:
        load_saved(str(tmp_path))
    assert "\n" not in str(error.value)
    with pytest.raises(RuntimeError, match=message):
        AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    with pytest.raises(ValueError, match=message):
        pipeline("audio-classification", model=str(tmp_path), trust_remote_code=True)
    AutoModel.from_pretrained(tmp_path, trust_remote_code=True, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("size", [0, 3000])
def test_a_file_of_weights_that_was_cut_is_one_line(name, size, make_model, processor, tmp_path):
    make_model().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    if name == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
    os.truncate(tmp_path / name, size)
    with pytest.raises(InputError, match="can't be loaded; give a folder") as error:
        load_saved(str(tmp_path))
    assert "\n" not in str(error.value)


def test_encoders_that_int8_has_no_use_for_are_told_in_one_line(make_model, processor, tmp_path):
    one_layer = {"num_hidden_layers": 1}
    make_model(audio_config=one_layer, text_config=one_layer).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} can't be loaded; .*int8 finds no layer above the first") as error:
        load_saved(str(tmp_path), int8=True)
    assert "\n" not in str(error.value)


def test_positions_that_the_longest_text_would_not_have_are_told_at_once(tmp_path):
    model, processor = load_model(ModelArguments(**TINY), DataArguments(), NAMES, TEXTS)
    # RoBERTa counts positions from there on.
    model.config.text_config.pad_token_id += 2
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} can't be loaded; give a folder .*(IndexError|out of bounds)"):
        load_saved(str(tmp_path))


OWN = {
    "configuration_own.py": """
from transformers import PretrainedConfig


class OwnConfig(PretrainedConfig):
    model_type = "own_text"

    def __init__(self, vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads = num_attention_heads
""",
    "modeling_own.py": """
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_own import OwnConfig


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layer = nn.ModuleList(nn.Linear(config.hidden_size, config.hidden_size) for _ in range(1))
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
        return BaseModelOutput(last_hidden_state=self.layer[0](self.embeddings(input_ids)))
""",
    "tokenization_own.py": """
from transformers import PreTrainedTokenizer


class OwnTokenizer(PreTrainedTokenizer):
    def __init__(self, pad_token="<pad>", unk_token="<unk>", **kwargs):
        super().__init__(pad_token=pad_token, unk_token=unk_token, **kwargs)

    vocab_size = 64

    def get_vocab(self):
        return dict(self.added_tokens_encoder)

    def _tokenize(self, text):
        return list(text)

    def _convert_token_to_id(self, token):
        return 2 + ord(token) % 62

    def _convert_id_to_token(self, index):
        return chr(index)

    def save_vocabulary(self, save_directory, filename_prefix=None):
        return ()
""",
}


@pytest.fixture
def own_code(backbones, tmp_path, monkeypatch):
    """Arguments of a text model with a configuration, a model and a tokenizer of its own."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run the folder's code"))
    folder = tmp_path / "own"
    folder.mkdir()
    for name, code in OWN.items():
        (folder / name).write_text(code)
    names = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    config = {"model_type": "own_text", "auto_map": names, "vocab_size": 64, "hidden_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    weights = {
        "embeddings.weight": torch.randn(64, 8),
        "layer.0.weight": torch.randn(8, 8),
        "layer.0.bias": torch.randn(8),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return {"audio_model": str(tmp_path / "audio"), "text_model": str(folder), "fusion": "early_fusion"}


def test_code_of_its_own_runs_only_where_it_is_trusted(own_code, tmp_path):
    data_args = DataArguments(max_text_tokens=16)
    with pytest.raises(
        InputError, match=f"--text_model {tmp_path / 'own'} brings code of its own.* --trust_remote_code"
    ):
        check_models(ModelArguments(**own_code), data_args)
    # A model that transformers knows, and a tokenizer that it would replace by another.
    shutil.copytree(tmp_path / "text", tmp_path / "half")
    shutil.copy(tmp_path / "own" / "tokenizer_config.json", tmp_path / "half")
    with pytest.raises(InputError, match="brings code of its own"):
        check_models(ModelArguments(**own_code | {"text_model": str(tmp_path / "half")}), data_args)


@pytest.mark.slow
def test_code_of_its_own_travels_with_the_checkpoint(own_code, processes, tmp_path):
    trusted = ModelArguments(**own_code, trust_remote_code=True)
    model, processor = load_model(trusted, DataArguments(max_text_tokens=16), NAMES, TEXTS)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    logits = model.eval()(**processor(text=TEXTS, return_tensors="pt")).logits
    again, _ = load_saved(str(tmp_path / "saved"), trust_remote_code=True)
    assert torch.equal(again(**processor(text=TEXTS, return_tensors="pt")).logits, logits)
    shutil.rmtree(tmp_path / "own")
    code = f"""
import sys
from transformers import AutoModel, AutoProcessor
folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
print(model(**processor(text={TEXTS!r}, return_tensors="pt")).logits.tolist())
model.save_pretrained(folder + "_again")
processor.save_pretrained(folder + "_again")
"""
    for folder in ("saved", "saved_again"):
        finished = processes.run("-c", code, str(tmp_path / folder), cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr
        assert torch.allclose(torch.tensor(json.loads(finished.stdout)), logits, atol=1e-6)


def test_a_saved_model_goes_on_with_other_classes_where_asked_to(make_model, processor, tmp_path, caplog):
    make_model(class_weights=[1.0] * 7).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    given = {"model_name_or_path": str(tmp_path)}
    with pytest.raises(InputError, match="or --ignore_mismatched_sizes to train a new classifier"):
        load_model(ModelArguments(**given), DataArguments(), ["calm", "upset"], TEXTS)
    model_args = ModelArguments(**given, ignore_mismatched_sizes=True)
    assert saved_classes(model_args) is None
    model, _ = load_model(model_args, DataArguments(), ["calm", "upset"], TEXTS, class_weights=[0.5, 1.5])
    assert model.config.label2id == {"calm": 0, "upset": 1} and model.config.class_weights == [0.5, 1.5]
    assert (
        "start anew, since their sizes differ: fusion.classifier_head.bias, fusion.classifier_head.weight"
        in caplog.text
    )
