"""
Convert a checkpoint of the original PyTorch code to a folder that `from_pretrained` loads.

```bash
python -m scripts.convert_checkpoint rsa_cfn.pth --fusion rsa_cfn --output_dir models/converted_rsa_cfn \
    --audio_model facebook/wav2vec2-large-960h-lv60-self --text_model klue/roberta-base
python -m scripts.convert_checkpoint text.pth --fusion text --output_dir models/converted_text \
    --text_model roberta.json
```
"""

import argparse
import pickle
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer

from configuration_rsa_cfn import POOLING_MODES, RsaCfnConfig
from foundation.errors import EXIT_CODES, InputError, OneLineParser, exit_code, run_script
from foundation.files import holds_files, owned, writing_all
from foundation.words import first_names
from fusion_rsa_cfn import FUSION_CLASSES
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from processing_rsa_cfn import RsaCfnProcessor


# How names of the original start → how ours do. In fusions of two modalities all others start with `classifier.`, ours
# with `fusion.`.
BACKBONES = {"wav_model": "audio_model", "rnn_model": "text_model"}
EARLY = {"norm": "norm", "classifier": "classifier_head"}
VOTES = {"wave_classifier": "audio_classifier_head", "text_classifier": "text_classifier_head"}
RESIDUAL = {"res_block.0": "residual.dense", "res_block2.0": "residual.output"}
CROSS = {
    "wav_proj": "audio_projection",
    "rnn_proj": "text_projection",
    "wav_norm": "audio_norm",
    "rnn_norm": "text_norm",
    "wave_attn": "audio_attention",
    "text_attn": "text_attention",
}
CROSS_NETWORK = {name: f"cross_network.{ours}" for name, ours in RESIDUAL.items()}
CROSS_NETWORK |= {"classifier.0": "cross_network.dense", "classifier.3": "classifier_head"}
MIXER = {
    "audio_projection": "audio_projection",
    "text_projection": "text_projection",
    "m_blocks.0.ln": "block_norm",
    "m_blocks.0.sequence_mixing.fc": "token_mlp.dense",
    "m_blocks.0.sequence_mixing.fc2": "token_mlp.output",
    "m_blocks.0.modal_mixing.fc": "channel_mlp.dense",
    "m_blocks.0.modal_mixing.fc2": "channel_mlp.output",
    "ln": "norm",
    "classifier.1": "dense",
    "classifier.4": "classifier_head",
}
HYBRID = {
    "base_norm": "early_fusion_head.norm",
    "base_classifier": "early_fusion_head.classifier_head",
    "lf_norm": "late_fusion_head.norm",
    "res_norm": "residual_fusion_head.norm",
    "res_classifier": "residual_fusion_head.classifier_head",
    "hybrid_norm": "norm",
    **{name: f"late_fusion_head.{ours}" for name, ours in VOTES.items()},
    **{name: f"residual_fusion_head.{ours}" for name, ours in RESIDUAL.items()},
    **{name: f"rsa_cfn.{ours}" for name, ours in CROSS.items()},
    **{f"rac_{name}": f"rsa_cfn.{ours}" for name, ours in CROSS_NETWORK.items()},
}
OF_TWO = {
    "early_fusion": EARLY,
    "late_fusion": VOTES | {"norm": "norm"},
    "mlp_mixer": {f"mixer_layer.{name}": ours for name, ours in MIXER.items()},
    "stack": EARLY,
    "residual": EARLY | RESIDUAL,
    "rsa": EARLY | RESIDUAL | {"attn": "attention"},
    "rsa_cfn": CROSS | CROSS_NETWORK,
    "hybrid_fusion": HYBRID,
}
NAMES = {
    "audio": {
        "wav2vec2": "audio_model",
        "classifier.dense": "fusion.dense",
        "classifier.out_proj": "fusion.classifier_head",
    },
    "text": {"roberta": "text_model", "norm": "fusion.norm", "classifier": "fusion.classifier_head"},
}
for _fusion, _names in OF_TWO.items():
    NAMES[_fusion] = BACKBONES | {f"classifier.{name}": f"fusion.{ours}" for name, ours in _names.items()}
# What is called otherwise in the middle of a name.
PARTS = {
    "attention.Q.": "attention.query.",
    "attention.K.": "attention.key.",
    "attention.V.": "attention.value.",
    "pos_conv_embed.conv.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
    "pos_conv_embed.conv.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
}

# A field of the configuration → how the tensor of a fusion ends in name whose first axis is that long.
SIZES = {
    "num_labels": "classifier_head.weight",
    "residual_size": ("fusion.residual.dense.weight", "_head.residual.dense.weight"),
    "attention_size": "fusion.attention.query.weight",
    "projection_size": ".audio_norm.weight",
    "cross_attention_size": ".audio_attention.query.weight",
    "cross_residual_size": ".cross_network.dense.weight",
}
MIXER_SIZES = {"mixer_size": "fusion.audio_projection.weight", "mixer_classifier_size": "fusion.dense.weight"}


def read_state_dict(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a `.pth` or `.safetensors` file by name. A `.pth` is a pickle, read without running its code."""
    try:
        is_safe = path.endswith(".safetensors")
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, or is damaged, and opening it could run code; if you trust its source, "
            "open it with the original code and give a file written by torch.save(model.state_dict(), PATH)"
        ) from error
    except Exception as error:  # zip, safetensors and legacy readers each have exceptions of their own
        raise InputError(f"{path} can't be read ({str(error).splitlines()[0]}); give a state dict's file") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise InputError(f"{path} holds a {type(state).__name__}, not a state dict: give a dict of names and tensors")
    return state


def convert_state_dict(state: dict[str, torch.Tensor], fusion: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of the original's state dict by our names, an unknown name left as it is; and the names of those
    dropped, which have no effect: poolers, constant position ids, and the second copy of the encoder in a text-only
    file."""
    converted, dropped = {}, []
    for name, tensor in state.items():
        start = next((start for start in NAMES[fusion] if name.startswith(f"{start}.")), "")
        new_name = NAMES[fusion].get(start, "") + name.removeprefix(start)
        for part, ours in PARTS.items():
            new_name = new_name.replace(part, ours)
        dead_copy = fusion == "text" and name.startswith(("embeddings.", "encoder.", "pooler."))
        if dead_copy or name.endswith("embeddings.position_ids") or new_name.startswith("text_model.pooler."):
            dropped.append(name)
        else:
            converted[new_name] = tensor
    return converted, dropped


def read_sizes(state: dict[str, torch.Tensor], fusion: str, max_text_tokens: int) -> dict[str, int]:
    """The fields of the configuration that tensors of a converted state dict tell."""
    # A tensor that isn't there is reported later, with all the others that are missing.
    sizes = {
        field: len(tensor)
        for field, ending in (SIZES | (MIXER_SIZES if fusion == "mlp_mixer" else {})).items()
        for name, tensor in state.items()
        if name.startswith("fusion.") and name.endswith(ending)
    }
    if fusion == "mlp_mixer" and "fusion.token_mlp.dense.weight" in state:
        positions = len(state["fusion.token_mlp.dense.weight"])
        sizes["max_audio_frames"] = positions - max_text_tokens
        if positions <= max_text_tokens:
            raise InputError(
                f"max_text_tokens={max_text_tokens} leaves no audio frames in the {positions} positions of the mixer; "
                f"give 1 to {positions - 1}"
            )
    return sizes


def build_config(arguments: argparse.Namespace, state: dict[str, torch.Tensor]) -> RsaCfnConfig:
    """The configuration of a converted state dict, with the original's habits: padding unmasked, no text dropout."""
    backbones = {"audio": arguments.audio_model, "text": arguments.text_model}
    for modality, model in backbones.items():
        if model is None and modality in FUSION_CLASSES[arguments.fusion].modalities:
            raise InputError(f"fusion={arguments.fusion!r} reads {modality}; give --{modality}_model")
        try:
            backbones[modality] = None if model is None else AutoConfig.from_pretrained(model)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{modality}_model={model!r} gives no configuration: {reason}") from error
    try:
        config = RsaCfnConfig(
            audio_config=backbones["audio"],
            text_config=backbones["text"],
            fusion=arguments.fusion,
            pooling_mode=arguments.pooling_mode,
            mask_padding=False,
            freeze_feature_encoder=True,
            max_text_tokens=arguments.max_text_tokens,
            **read_sizes(state, arguments.fusion, arguments.max_text_tokens),
        )
    except ValueError as error:
        raise InputError(error) from error
    config.text_config.update({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    return config


def save_processor(arguments: argparse.Namespace, folder: Path):
    """Save the processor of the named backbones beside the model, or say in one line why there is none."""
    if any(model is None or Path(model).is_file() for model in (arguments.audio_model, arguments.text_model)):
        print("no processor saved: it takes the folders or Hub ids of both backbones")
        return
    try:
        feature_extractor = AutoFeatureExtractor.from_pretrained(arguments.audio_model)
        tokenizer = AutoTokenizer.from_pretrained(arguments.text_model)
    except (OSError, ValueError) as error:
        print(f"no processor saved: {str(error).splitlines()[0]}")
        return
    # The original keeps the head of a long clip.
    options = {"max_text_tokens": arguments.max_text_tokens, "audio_crop": "head"}
    RsaCfnProcessor(feature_extractor, tokenizer, **options).save_pretrained(folder)


def load(state: dict[str, torch.Tensor], config: RsaCfnConfig) -> RsaCfnForSequenceClassification:
    """The model, or an `InputError` that names every tensor that is missing, unknown, misshapen or not finite."""
    model = RsaCfnForSequenceClassification(config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        given = f"fusion={config.fusion!r} and the given backbones"
        raise InputError(f"The file doesn't fit {given}, by our names of its tensors: {error}") from error
    if not_finite := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise InputError(f"The file holds tensors that aren't finite: {first_names(not_finite)}")
    return model


def convert(arguments: argparse.Namespace, given: str) -> None:
    """Read, rename, check, load and save."""
    with owned(arguments.output_dir, given) as folder:
        if holds_files(folder):
            raise InputError(f"{given} isn't empty; give a new folder, or remove this one")
        state, dropped = convert_state_dict(read_state_dict(arguments.checkpoint), arguments.fusion)
        model = load(state, build_config(arguments, state))
        with writing_all(folder) as beside:
            model.save_pretrained(beside)
            for name in dropped:
                print(f"dropped: {name}")
            save_processor(arguments, beside)
    print(f"saved {len(state)} tensors of fusion={arguments.fusion!r} to {arguments.output_dir}")


def main(argv: list[str] | None = None) -> int:
    summary = "Convert a checkpoint of the original PyTorch code."
    parser = OneLineParser(prog="convert_checkpoint", description=summary, epilog=EXIT_CODES)
    parser.add_argument("checkpoint", help="a state dict: .pth, read without running code, or .safetensors")
    parser.add_argument("--fusion", choices=NAMES, required=True, help="the method the checkpoint was trained with")
    parser.add_argument("--output_dir", required=True, help="folder to save the model in")
    for modality in ("audio", "text"):
        what = f"the {modality} backbone: Hub id, folder, or a JSON file with its configuration"
        parser.add_argument(f"--{modality}_model", help=what)
    parser.add_argument("--pooling_mode", choices=POOLING_MODES[:3], default="mean", help="default: mean")
    parser.add_argument("--max_text_tokens", type=int, default=256, help="length of padded transcripts; default: 256")
    arguments = parser.parse_args(argv)
    given = f"output_dir={arguments.output_dir!r}"
    return exit_code("convert_checkpoint", partial(convert, arguments, given), given)


if __name__ == "__main__":
    run_script("convert_checkpoint", main)
