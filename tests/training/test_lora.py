"""LoRA: what trains, what is saved, and that the last checkpoint is one like any other; peft on the model itself."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel

from configuration_rsa_cfn import FUSIONS
from foundation.errors import InputError
from modeling_rsa_cfn import RsaCfnForSequenceClassification, logger
from run_classification import main
from tests.slow import mostly_slow
from training.lora import add_lora, merge_lora, save_adapter
from training.parsing import parse_arguments


LORA = {"rank": 2, "alpha": 4, "targets": ["audio", "text"]}


def train(model, batch):
    """A step, after which no update is zero."""
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0)
    model.train()(**batch, labels=torch.tensor([1, 2, 3])).loss.backward()
    optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def batch(processor, clips, texts):
    return processor(audio=clips, text=texts, return_tensors="pt")


@pytest.mark.parametrize("audio", ["wav2vec2", "wavlm"])
@pytest.mark.parametrize("fusion", mostly_slow(FUSIONS, "hybrid_fusion"))
def test_updates_train_are_saved_and_merged(fusion, audio, make_model, batch, tmp_path):
    fields = {"fusion": fusion, "audio_config": {"model_type": audio}, "use_weighted_layer_sum": fusion == "mlp_mixer"}
    fields["pooling_mode"] = "attentive_statistics" if fusion == "early_fusion" else "mean"
    model, base = make_model(**fields), make_model(**fields)
    targets = list(model.fusion.modalities)
    add_lora(model, LORA | {"targets": targets})
    train(model, batch)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(dict(model.named_parameters())[name].grad is not None for name in trained)
    assert {name.partition(".")[0] for name in trained if "lora_" in name} == {f"{target}_model" for target in targets}
    assert {name for name in trained if "lora_" not in name} == {
        name for name, parameter in base.named_parameters() if parameter.requires_grad and "_model." not in name
    }
    expected = model(**batch).logits
    # A checkpoint goes on as it was.
    resumed = make_model(**fields)
    add_lora(resumed, LORA | {"targets": targets})
    resumed.load_state_dict(model.state_dict())
    assert torch.equal(resumed(**batch).logits, expected)
    if not model.config.use_weighted_layer_sum:
        save_adapter(model, tmp_path / "adapter", base=None)
        adapted = PeftModel.from_pretrained(make_model(**fields), tmp_path / "adapter")
        torch.testing.assert_close(adapted(**batch).logits, expected, atol=1e-6, rtol=0)
    merge_lora(model)
    torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path / "merged")
    merged = RsaCfnForSequenceClassification.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(**batch).logits, expected, atol=1e-5, rtol=0)
    assert "lora" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    changed = {name for name, weight in base.state_dict().items() if not torch.equal(weight, merged.state_dict()[name])}
    assert not any(name.endswith("bias") or "norm" in name for name in changed if not name.startswith("fusion."))


@pytest.mark.parametrize("targets", mostly_slow(["q_proj v_proj query value", "all-linear"], "all-linear"))
@pytest.mark.parametrize("task_type", mostly_slow(["SEQ_CLS", None], "SEQ_CLS"))
@pytest.mark.parametrize("fusion", mostly_slow(FUSIONS, "hybrid_fusion", "late_fusion"))
def test_peft_itself_trains_and_loads_again(fusion, task_type, targets, make_model, batch, tmp_path):
    """As docs/training.md has it: the fusion is trained whole and saved once."""
    model = make_model(fusion=fusion)
    names = {f"base_model.model.{name}" for name, _ in model.fusion.named_parameters("fusion")}
    targets = targets.split() if " " in targets else targets
    adapted = get_peft_model(model, LoraConfig(task_type, target_modules=targets, modules_to_save=["fusion"]))
    expected = train(adapted, batch)(**batch).logits
    trained = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    trained = {name.replace("modules_to_save.default.", "") for name in trained if ".lora_" not in name}
    assert trained == {name for name in names if not name.endswith("key.bias")}
    adapted.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {name for name in saved if ".lora_" not in name} == names and len(saved) > len(names)
    loaded = PeftModel.from_pretrained(make_model(fusion=fusion), tmp_path)
    # Where a tensor lies in memory can change its sums' last digit.
    torch.testing.assert_close(loaded(**batch).logits, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(loaded.merge_and_unload()(**batch).logits, expected, atol=1e-5, rtol=0)


def test_a_fusion_that_peft_leaves_out_is_told(make_model, caplog):
    model = get_peft_model(make_model(), LoraConfig("SEQ_CLS", target_modules=["q_proj", "v_proj"]))
    logger.warning_once.cache_clear()
    with caplog.at_level("WARNING", logger.name):
        model.train()
    assert "give modules_to_save=['fusion'] to train it" in caplog.text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--lora_rank 0", "--lora_rank 0 is out of range; give 1 or more"),
        ("--lora_rank 4 --lora_alpha 0", "--lora_alpha 0.0 is out of range; give more than 0"),
        ("--lora_alpha 4", "--lora_alpha has no use without --lora_rank; give it"),
        ("--lora_rank 4 --cache_features", "trains the audio backbone, and --cache_features doesn't; give one"),
        ("--lora_rank 4 --freeze_text_encoder", "trains the text backbone, and --freeze_text_encoder doesn't"),
        ("--lora_rank 4 --fusion text --lora_targets audio", "--fusion text has no such backbone"),
        ("--lora_rank 4 --lora_save adapter", "can't be loaded again: the model has new random backbones"),
    ],
)
def test_what_has_no_use_is_refused(arguments, message, tmp_path):
    backbones = ["--audio_model", "tiny", "--text_model", "tiny", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match=message):
        parse_arguments([*backbones, *arguments.split()])


def test_without_peft_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("training.checks.find_spec", lambda name: None)
    with pytest.raises(InputError, match="--lora_rank needs peft; pip install peft"):
        parse_arguments(["--lora_rank", "4", "--output_dir", str(tmp_path)])


@pytest.mark.slow
def test_a_run_goes_on_keeps_the_best_and_ends_in_a_whole_checkpoint(prepared_dir, tmp_path):
    def run(folder, *more):
        given = f"--dataset_name {prepared_dir} --output_dir {tmp_path / folder} --audio_model tiny --text_model tiny"
        given += " --fusion rsa_cfn --lora_rank 4 --lora_targets text --text_learning_rate 0.01 --max_steps 4 --bf16"
        given += " --use_cpu --eval_strategy steps --eval_steps 2 --save_strategy steps --save_steps 2"
        return main(*parse_arguments([*given.split(), "--load_best_model_at_end", "--disable_tqdm", "true", *more]))

    whole = run("whole")
    (tmp_path / "stopped").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "stopped" / "checkpoint-2")
    with pytest.raises(
        InputError, match="of another run .LoRA {'alpha': 8, 'rank': 4, .*, now {'alpha': 16, 'rank': 8"
    ):
        run("stopped", "--resume_from_checkpoint", "last", "--lora_rank", "8")
    resumed = run("stopped", "--resume_from_checkpoint", "last")
    assert resumed["eval_loss"] == whole["eval_loss"]
    weights = [load_file(tmp_path / folder / "model.safetensors") for folder in ("whole", "stopped")]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert AutoModel.from_pretrained(tmp_path / "whole", trust_remote_code=True).config.freeze_audio_encoder
    assert "LoRA's of rank 4, merged into the text" in (tmp_path / "whole" / "README.md").read_text()
    with pytest.raises(InputError, match="holds LoRA's updates apart"):
        parse_arguments(["--model_name_or_path", str(tmp_path / "whole" / "checkpoint-2"), "--do_eval"])
