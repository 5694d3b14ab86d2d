"""The model: padding, fusions, loss, pretrained backbones, and the round trip through the Auto classes."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, TorchAoConfig
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from configuration_rsa_cfn import FUSIONS, POOLING_MODES
from fusion_rsa_cfn import Pooling, pool
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from tests.slow import mostly_slow


SYSTEMS = [(fusion, "mean") for fusion in FUSIONS]
SYSTEMS += [(fusion, "attentive_statistics") for fusion in ("early_fusion", "cross_attention")]
OF_SYSTEMS = pytest.mark.parametrize("fusion, pooling_mode", SYSTEMS)
EXPLAINED_SKIPS = {"torchao": "It warns at every import, so that requirements.txt leaves it out."}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_output(fusion, make_model, processor, clips, texts):
    model = make_model(fusion=fusion)
    batch = processor(audio=clips, text=texts, sampling_rate=16000, padding=True, return_tensors="pt")
    output = model(**batch)
    assert output.logits.shape == (3, 7)
    assert output.loss is None
    assert (output.audio_embeds is None) == (fusion == "text")
    assert (output.text_embeds is None) == (fusion == "audio")
    labels = torch.tensor([0, 3, -100])
    expected = nn.functional.cross_entropy(output.logits[:2], labels[:2])
    assert model(**batch, labels=labels).loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("pooling_mode", mostly_slow(POOLING_MODES, "mean", "sum", "max"))
@pytest.mark.parametrize("fusion", FUSIONS)
def test_logits_of_a_clip_do_not_depend_on_its_batch(fusion, pooling_mode, make_model, processor, clips, texts):
    model = make_model(fusion=fusion, pooling_mode=pooling_mode)
    with torch.no_grad():
        together = model(**processor(audio=clips, text=texts, return_tensors="pt")).logits
        for index, (clip, text) in enumerate(zip(clips, texts)):
            alone = model(**processor(audio=[clip], text=[text], return_tensors="pt")).logits
            torch.testing.assert_close(alone[0], together[index], atol=1e-5, rtol=0)


@OF_SYSTEMS
def test_embeds_stand_in_for_raw_inputs(fusion, pooling_mode, make_model, processor, clips, texts):
    model = make_model(fusion=fusion, pooling_mode=pooling_mode)
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    expected = model(**batch).logits
    reads = model.fusion.modalities
    audio = (batch["input_values"], batch["audio_attention_mask"])
    text = (batch["input_ids"], batch["attention_mask"])
    if model.takes_pooled:
        embeds = {}
        if "audio" in reads:
            embeds["audio_embeds"] = model.get_audio_features(*audio)
        if "text" in reads:
            embeds["text_embeds"] = model.get_text_features(*text)
    else:
        embeds = dict(zip(("audio_embeds", "audio_attention_mask"), model.get_audio_states(*audio)))
        embeds |= zip(("text_embeds", "attention_mask"), model.get_text_states(*text))
    for modality in reads:
        getattr(model, f"{modality}_model").forward = None  # what was computed isn't computed again
    torch.testing.assert_close(model(**embeds).logits, expected, atol=1e-6, rtol=0)


def test_a_row_without_a_modality_says_so_by_the_mask_of_its_embeds(make_model, processor, clips, texts):
    model = make_model(fusion="early_fusion")
    expected = model(**processor(audio=[clips[0], None], text=texts[:2], return_tensors="pt")).logits
    batch = processor(audio=clips[:2], text=texts[:2], return_tensors="pt")
    audio = model.get_audio_features(batch["input_values"], batch["audio_attention_mask"])
    text = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    mask = torch.tensor([[1], [0]])
    logits = model(audio_embeds=audio, audio_attention_mask=mask, text_embeds=text).logits
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


def test_embeds_that_cannot_be_used_are_refused(make_model, processor, clips, texts):
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    with pytest.raises(ValueError, match="input_ids and text_embeds are both given; give one of them"):
        make_model()(**batch, text_embeds=torch.zeros(3, 12))
    for fusion, pooling_mode in (("mlp_mixer", "mean"), ("rsa_cfn", "attentive_statistics")):
        model = make_model(fusion=fusion, pooling_mode=pooling_mode)
        told = rf"has shape \(3, 16\), but fusion='{fusion}' with pooling_mode='{pooling_mode}' reads sequences"
        with pytest.raises(ValueError, match=f"audio_embeds {told}"):
            model(audio_embeds=torch.zeros(3, 16), text_embeds=torch.zeros(3, 2, 12))


def test_padding_that_is_not_silent_has_no_effect(make_model, processor, clips, texts):
    model = make_model()
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    expected = model(**batch).logits
    batch["input_ids"][batch["attention_mask"] == 0] = 1
    batch["input_values"][batch["audio_attention_mask"] == 0] = 0.3
    # Samples after the end reach no valid frame, so what stands there can't matter.
    torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=0)


@OF_SYSTEMS
def test_every_parameter_moves_after_one_step(fusion, pooling_mode, make_model, processor, clips, texts):
    model = make_model(fusion=fusion, pooling_mode=pooling_mode).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    model(**batch, labels=torch.tensor([1, 2, 3])).loss.backward()
    optimizer.step()
    unmoved = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    # Terms that cancel: a key's bias in its softmax; the bias of a value, or of a position, in the norm that follows.
    cancelling = ("k_proj.bias", "key.bias", "audio_attention.value.bias", "text_attention.value.bias")
    cancelling += ("token_mlp.output.bias",)
    assert {name for name in unmoved if not name.endswith(cancelling)} == set()


@pytest.mark.parametrize(
    "fusion, pooling_mode, audio", [*((*system, "wav2vec2") for system in SYSTEMS), ("rsa_cfn", "mean", "wavlm")]
)
def test_every_linear_layer_is_called_and_can_be_quantised(
    fusion, pooling_mode, audio, make_model, processor, clips, texts
):
    """An nn.Linear that only lends its weights to other code gets a dead adapter from LoRA, and breaks in int8."""
    model = make_model(fusion=fusion, pooling_mode=pooling_mode, audio_config={"model_type": audio})
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    called = set()
    for name, layer in linear.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).logits
        assert called == set(linear)
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
        logits = quantised(**batch).logits
    assert not any(isinstance(layer, nn.Linear) for layer in quantised.modules())
    torch.testing.assert_close(logits, expected, atol=0.1, rtol=0)


def test_wavlms_attention_is_the_librarys(make_model, processor, clips):
    model, batch = (
        make_model(fusion="audio", audio_config={"model_type": "wavlm"}),
        processor(clips, return_tensors="pt"),
    )
    logits = model(**batch).logits
    for layer in model.audio_model.modules():
        if isinstance(layer, WavLMAttention):
            assert type(layer) is not WavLMAttention
            layer.__class__ = WavLMAttention
    torch.testing.assert_close(logits, model(**batch).logits, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_int8_as_it_is_loaded(fusion, make_model, processor, clips, texts, tmp_path):
    """Every linear layer, with no list of those to leave out; and saved so, it loads again."""
    quantization = pytest.importorskip("torchao.quantization")
    model = make_model(fusion=fusion)
    model.save_pretrained(tmp_path / "float")
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    load = RsaCfnForSequenceClassification.from_pretrained
    small = load(tmp_path / "float", quantization_config=config)
    linear = [layer for layer in small.modules() if isinstance(layer, nn.Linear)]
    assert all(type(layer.weight.data) is not torch.Tensor for layer in linear)
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    with torch.no_grad():
        logits = small(**batch).logits
        torch.testing.assert_close(logits, model(**batch).logits, atol=0.05, rtol=0)
        small.save_pretrained(tmp_path / "int8")
        torch.testing.assert_close(load(tmp_path / "int8")(**batch).logits, logits, atol=1e-5, rtol=0)


def test_feature_encoder_freezes_and_stays_frozen_after_a_reload(make_model, tmp_path):
    new = make_model(freeze_feature_encoder=True)
    new.save_pretrained(tmp_path)
    for model in (new, RsaCfnForSequenceClassification.from_pretrained(tmp_path)):
        frozen = {name for name, parameter in model.audio_model.named_parameters() if not parameter.requires_grad}
        assert frozen == {
            name for name, _ in model.audio_model.named_parameters() if name.startswith("feature_extractor.")
        }


def test_pool_ignores_what_is_masked():
    hidden_states = torch.tensor([[[1.0, 5.0], [3.0, -2.0], [torch.nan, torch.inf]]])
    counts = torch.tensor([[1, 1, 0]])
    assert pool(hidden_states, counts, "mean").tolist() == [[2.0, 1.5]]
    assert pool(hidden_states, counts, "sum").tolist() == [[4.0, 3.0]]
    assert pool(hidden_states, counts, "max").tolist() == [[3.0, 5.0]]


def test_attentive_statistics_equal_their_definition(make_config):
    """Of each row alone, and a position that counts three times is three positions."""
    pooling = Pooling(5, make_config(pooling_mode="attentive_statistics")).double()
    hidden_states = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([[1] * 7, [1, 1, 3, 0, 0, 0, 0], [1] + [0] * 6])
    poisoned = torch.where(counts.unsqueeze(-1) > 0, hidden_states, torch.nan)
    pooled, (weights,) = pooling(poisoned, counts)
    for row, repeats in enumerate(counts):
        states = hidden_states[row].repeat_interleave(repeats, dim=0)  # (S, H)
        energies = torch.tanh(states @ pooling.dense.weight.T + pooling.dense.bias) @ pooling.energy.weight.T
        shares = energies.exp() / energies.exp().sum()
        mean = (shares * states).sum(dim=0)
        deviation = (shares * states**2).sum(dim=0) - mean**2
        expected = mean + pooling.deviation(deviation.clamp(min=1e-12).sqrt())
        torch.testing.assert_close(pooled[row], expected, atol=1e-7, rtol=0)
        assert weights[row, 0].sum().item() == pytest.approx(1) and not weights[row, 0, repeats == 0].any()
    pooled.sum().backward()
    assert hidden_states.grad.isfinite().all() and not hidden_states.grad[1, 3:].any()


def test_output_attentions(make_model, processor, clips, texts):
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    output = make_model()(**batch, output_attentions=True)
    assert [tuple(attention.shape) for attention in output.attentions] == [(3, 6, 6), (3, 6, 6)]
    torch.testing.assert_close(output.logits, make_model()(**batch).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", ["cross_attention", "rsa"])
def test_attention_over_time(fusion, make_model, processor, clips, texts):
    """Adds up to 1 over what is there, for each query; a missing modality has none in cross_attention."""
    model = make_model(fusion=fusion, pooling_mode="attentive_statistics", cross_attention_layers=2)
    batch = processor(audio=[*clips[:2], None], text=texts, return_tensors="pt")
    output = model(**batch, output_attentions=True)
    is_across = fusion == "cross_attention"
    _, frames = model.get_audio_states(batch["input_values"], batch["audio_attention_mask"])
    tokens = batch["attention_mask"]
    assert len(output.attentions) == (not is_across)
    for maps, counts, queries in ((output.audio_attentions, frames, tokens), (output.text_attentions, tokens, frames)):
        assert len(maps) == (2 if is_across else 1)
        for attention in maps:
            assert attention.shape == (3, queries.shape[1] if is_across else 1, counts.shape[1])
            there = counts.bool().any(dim=1) if is_across else torch.ones(3, dtype=torch.bool)
            expected = there.float()[:, None].expand(attention.shape[:2])
            torch.testing.assert_close(attention.sum(dim=2), expected)
            assert not attention.masked_fill(counts.bool()[:, None], 0.0)[counts.bool().any(dim=1)].any()
    torch.testing.assert_close(output.logits, model(**batch).logits, atol=1e-6, rtol=0)
    assert model(**batch).audio_attentions is None


def test_unmasked_text_is_pooled_over_all_256_positions(make_model, processor, clips, texts):
    """One pad token, counted, gives what 256 real positions of padding give."""
    short = make_model(fusion="text", mask_padding=False, text_config={"max_position_embeddings": 300})
    short.config.max_text_tokens = 256
    ids = processor(text=texts, return_tensors="pt")
    full = processor.tokenizer(texts, padding="max_length", max_length=256, return_tensors="pt")
    hidden_states = short.text_model(full["input_ids"], attention_mask=full["attention_mask"]).last_hidden_state
    expected = hidden_states.mean(dim=1)
    torch.testing.assert_close(short.get_text_features(**ids), expected, atol=1e-6, rtol=0)


def test_loss_under_accumulation_equals_the_whole_batch(make_model, processor, clips, texts):
    model = make_model()
    labels = torch.tensor([0, 3, 5])
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    whole = model(**batch, labels=labels).loss
    parts = [
        model(**{k: v[i] for k, v in batch.items()}, labels=labels[i], num_items_in_batch=torch.tensor(3)).loss
        for i in ([0, 1], [2])
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


def test_from_audio_text_pretrained(make_model, make_config, tmp_path):
    """Backbones arrive exactly, in float32, whatever their file holds; the fusion is new; the stem is frozen."""
    model = make_model()
    model.audio_model.half().save_pretrained(tmp_path / "audio")
    AutoModel.from_config(make_config().text_config).save_pretrained(tmp_path / "text")  # with a pooler
    joined = RsaCfnForSequenceClassification.from_audio_text_pretrained(
        tmp_path / "audio", tmp_path / "text", projection_size=6, cross_residual_size=10, audio_layerdrop=0.05
    )
    assert {p.dtype for p in joined.parameters()} == {torch.float32}
    assert joined.config.freeze_feature_encoder and joined.config.audio_config.layerdrop == 0.05
    assert joined.config.text_config.hidden_dropout_prob == 0.0
    for name, weight in model.audio_model.state_dict().items():
        assert torch.equal(joined.audio_model.state_dict()[name], weight.float()), name
    saved_text = AutoModel.from_pretrained(tmp_path / "text").state_dict()
    for name, weight in joined.text_model.state_dict().items():
        assert torch.equal(weight, saved_text[name]), name
    with pytest.raises(ValueError, match="audio_layerdorp=0.1 is no field"):
        RsaCfnForSequenceClassification.from_audio_text_pretrained(
            tmp_path / "audio", tmp_path / "text", audio_layerdorp=0.1
        )


@pytest.mark.parametrize("model_type", ["hubert", "wavlm", "wav2vec2-conformer", "unispeech-sat", "data2vec-audio"])
def test_other_audio_backbones(model_type, make_model, processor, clips, texts):
    audio_config = {"model_type": model_type}
    if model_type == "data2vec-audio":
        audio_config |= {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}
    logits = make_model(audio_config=audio_config)(**processor(audio=clips, text=texts, return_tensors="pt")).logits
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "electra"])
def test_other_text_backbones(model_type, make_model, processor, clips, texts):
    model = make_model(text_config={"model_type": model_type})
    assert not any("pooler" in name for name in model.state_dict())
    logits = model(**processor(audio=clips, text=texts, return_tensors="pt")).logits
    assert torch.isfinite(logits).all()


CODE_FILES = {
    f"{name}_rsa_cfn.py" for name in ("audio", "configuration", "encoders", "fusion", "modeling", "processing")
}
RELOAD = """
import json, pathlib, sys
import torch
import transformers

batch = torch.load("batch.pt")
for folder in map(str, sorted(pathlib.Path("checkpoints").iterdir())):
    report = {"fusion": transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True).fusion, "logits": {}}
    others = ("AutoModelForAudioClassification", "AutoModelForSequenceClassification")
    for name in ("AutoModel", *(others if report["fusion"] == "rsa_cfn" else ())):
        model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval()
        report["logits"][name] = model(**batch).logits.tolist()
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    report["input_ids"] = processor(text=sys.argv[1:], return_tensors="pt")["input_ids"].tolist()
    print(json.dumps(report))
"""


def test_auto_classes_load_every_checkpoint_in_a_new_process(make_model, processor, clips, texts, processes, tmp_path):
    """From another directory, offline, with an empty modules cache, and without this repository on the path."""
    batch = dict(processor(audio=clips, text=texts, return_tensors="pt"))
    torch.save(batch, tmp_path / "batch.pt")
    for fusion in FUSIONS:
        make_model(fusion=fusion).save_pretrained(tmp_path / "checkpoints" / fusion)
        processor.save_pretrained(tmp_path / "checkpoints" / fusion)
        assert {path.name for path in (tmp_path / "checkpoints" / fusion).glob("*.py")} == CODE_FILES
    finished = processes.run("-c", RELOAD, *texts, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    reports = [json.loads(line) for line in finished.stdout.splitlines()]
    assert sorted(report["fusion"] for report in reports) == sorted(FUSIONS)
    for report in reports:
        expected = make_model(fusion=report["fusion"])(**batch).logits.tolist()
        assert report["input_ids"] == batch["input_ids"].tolist()
        for name, logits in report["logits"].items():
            np.testing.assert_allclose(logits, expected, atol=1e-6, err_msg=f"{report['fusion']} {name}")


def test_a_feature_extractors_own_mask_is_the_audios_or_refused(make_model, processor, clips):
    model = make_model()
    batch = processor(audio=clips, return_tensors="pt")
    expected = model(**batch).logits
    mask = batch.pop("audio_attention_mask")
    assert torch.equal(model(**batch, attention_mask=mask).logits, expected)
    for masks in ({"attention_mask": mask[:, :9]}, {"attention_mask": mask, "audio_attention_mask": mask}):
        with pytest.raises(ValueError, match="is the text's, and there are no input_ids; give the audio's as audio_"):
            model(**batch, **masks)


@pytest.mark.parametrize("fusion", ["late_fusion", "rsa_cfn"])
def test_a_saved_model_learns_other_labels(fusion, make_model, processor, clips, texts, tmp_path, caplog):
    """As users of transformers type it, with the local class and the Auto classes; what keeps its size stays."""
    saved = make_model(fusion=fusion, class_weights=[2.0] + [1.0] * 6)
    saved.save_pretrained(tmp_path)
    weights = saved.state_dict()
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    names = {0: "calm", 1: "upset", 2: "loud"}
    labels = {"num_labels": 3, "id2label": names, "label2id": {name: index for index, name in names.items()}}
    unnamed = {index: f"LABEL_{index}" for index in range(3)}
    local, auto = (
        RsaCfnForSequenceClassification.from_pretrained,
        partial(AutoModel.from_pretrained, trust_remote_code=True),
    )
    for given, expected in ((labels, names), ({"num_labels": 3}, unnamed), ({"id2label": names}, names)):
        for load in (local, auto) if fusion == "rsa_cfn" else (local,):
            model = load(tmp_path, **given, ignore_mismatched_sizes=True)
            assert model.config.id2label == expected and model.config.class_weights is None
            assert model.config.label2id == {name: index for index, name in expected.items()}
            assert model(**batch, labels=torch.tensor([0, 1, 2])).loss.isfinite()
    assert "class_weights of the saved labels are dropped" in caplog.text
    anew = {name for name, weight in model.state_dict().items() if weight.shape != weights[name].shape}
    assert f"since their sizes differ: {', '.join(sorted(anew))}" in caplog.text
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items() if name not in anew)
    assert local(tmp_path, num_labels=7).config.class_weights == saved.config.class_weights
    with pytest.raises(RuntimeError, match="give a whole checkpoint, or ignore_mismatched_sizes=True"):
        local(tmp_path, num_labels=3)


@pytest.mark.parametrize("fusion", mostly_slow(FUSIONS, "hybrid_fusion"))
def test_files_keep_the_names_of_old(fusion, make_model, tmp_path):
    model = make_model(fusion=fusion)
    expected = model.state_dict()
    for folder in ("made", "loaded", "loaded_again"):
        model.save_pretrained(tmp_path / folder)
        weights = load_file(tmp_path / folder / "model.safetensors")
        assert set(weights) == {name.replace("_head.", ".") for name in expected}
        load = RsaCfnForSequenceClassification if folder == "made" else AutoModel
        model = load.from_pretrained(tmp_path / folder, **({} if folder == "made" else {"trust_remote_code": True}))
        resumed = make_model(fusion=fusion)
        resumed.load_state_dict(weights)
        for loaded in (model, resumed):
            assert all(torch.equal(weight, expected[name]) for name, weight in loaded.state_dict().items())
