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
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer

from configuration_rsa_cfn import POOLING_MODES, RsaCfnConfig
from foundation.errors import OneLineParser, complain, run_script
from foundation.files import holds_files, owned, writing_all
from foundation.words import first_names, writable
from fusion_rsa_cfn import FUSION_CLASSES
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from processing_rsa_cfn import RsaCfnProcessor


BACKBONE_NAMES = {"wav_model": "audio_model", "rnn_model": "text_model"}
RESIDUAL_NAMES = {
    "classifier.norm": "fusion.norm",
    "classifier.res_block.0": "fusion.residual.dense",
    "classifier.res_block2.0": "fusion.residual.output",
    "classifier.classifier": "fusion.classifier_head",
}
EARLY_NAMES = {"classifier.norm": "fusion.norm", "classifier.classifier": "fusion.classifier_head"}


def attention_names(original: str, ours: str) -> dict[str, str]:
    """Names of the query, key and value of one attention."""
    return {f"{original}.{letter}": f"{ours}.{name}" for letter, name in zip("QKV", ("query", "key", "value"))}


def cross_names(ours: str, block: str, second_block: str, classifier: str) -> dict[str, str]:
    """Names of the parts of RSA-CFN, which stand alone or are a branch of `hybrid_fusion`."""
    return {
        "classifier.wav_proj": f"{ours}.audio_projection",
        "classifier.rnn_proj": f"{ours}.text_projection",
        "classifier.wav_norm": f"{ours}.audio_norm",
        "classifier.rnn_norm": f"{ours}.text_norm",
        **attention_names("classifier.wave_attn", f"{ours}.audio_attention"),
        **attention_names("classifier.text_attn", f"{ours}.text_attention"),
        f"classifier.{block}.0": f"{ours}.cross_network.residual.dense",
        f"classifier.{second_block}.0": f"{ours}.cross_network.residual.output",
        f"classifier.{classifier}.0": f"{ours}.cross_network.dense",
        f"classifier.{classifier}.3": f"{ours}.classifier_head",
    }


MIXER = "classifier.mixer_layer"
# For each fusion, the start of a name in the original → the start of ours.
NAMES = {
    "audio": {
        "wav2vec2": "audio_model",
        "classifier.dense": "fusion.dense",
        "classifier.out_proj": "fusion.classifier_head",
    },
    "text": {"roberta": "text_model", "norm": "fusion.norm", "classifier": "fusion.classifier_head"},
    "early_fusion": BACKBONE_NAMES | EARLY_NAMES,
    "late_fusion": BACKBONE_NAMES
    | {
        "classifier.wave_classifier": "fusion.audio_classifier_head",
        "classifier.text_classifier": "fusion.text_classifier_head",
        "classifier.norm": "fusion.norm",
    },
    "mlp_mixer": BACKBONE_NAMES
    | {
        f"{MIXER}.audio_projection": "fusion.audio_projection",
        f"{MIXER}.text_projection": "fusion.text_projection",
        f"{MIXER}.m_blocks.0.ln": "fusion.block_norm",
        f"{MIXER}.m_blocks.0.sequence_mixing.fc": "fusion.token_mlp.dense",
        f"{MIXER}.m_blocks.0.sequence_mixing.fc2": "fusion.token_mlp.output",
        f"{MIXER}.m_blocks.0.modal_mixing.fc": "fusion.channel_mlp.dense",
        f"{MIXER}.m_blocks.0.modal_mixing.fc2": "fusion.channel_mlp.output",
        f"{MIXER}.ln": "fusion.norm",
        f"{MIXER}.classifier.1": "fusion.dense",
        f"{MIXER}.classifier.4": "fusion.classifier_head",
    },
    "stack": BACKBONE_NAMES | EARLY_NAMES,
    "residual": BACKBONE_NAMES | RESIDUAL_NAMES,
    "rsa": BACKBONE_NAMES | RESIDUAL_NAMES | attention_names("classifier.attn", "fusion.attention"),
    "rsa_cfn": BACKBONE_NAMES | cross_names("fusion", "res_block", "res_block2", "classifier"),
    "hybrid_fusion": BACKBONE_NAMES
    | {
        "classifier.base_norm": "fusion.early_fusion_head.norm",
        "classifier.base_classifier": "fusion.early_fusion_head.classifier_head",
        "classifier.wave_classifier": "fusion.late_fusion_head.audio_classifier_head",
        "classifier.text_classifier": "fusion.late_fusion_head.text_classifier_head",
        "classifier.lf_norm": "fusion.late_fusion_head.norm",
        "classifier.res_norm": "fusion.residual_fusion_head.norm",
        "classifier.res_block.0": "fusion.residual_fusion_head.residual.dense",
        "classifier.res_block2.0": "fusion.residual_fusion_head.residual.output",
        "classifier.res_classifier": "fusion.residual_fusion_head.classifier_head",
        "classifier.hybrid_norm": "fusion.norm",
        **cross_names("fusion.rsa_cfn", "rac_res_block", "rac_res_block2", "rac_classifier"),
    },
}
WEIGHT_NORM_NAMES = {
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
        if path.endswith(".safetensors"):
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, or is damaged, and opening it could run code; if you trust its source, "
            "open it with the original code and give a file written by torch.save(model.state_dict(), PATH)."
        ) from error
    except Exception as error:  # zip, safetensors and legacy readers each have exceptions of their own
        raise ValueError(f"{path} can't be read ({str(error).splitlines()[0]}); give a state dict's file.") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict: give a dict of names and tensors.")
    return state


def convert_state_dict(state: dict[str, torch.Tensor], fusion: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of the original's state dict by our names, an unknown name left as it is; and the names of those
    dropped, which have no effect: poolers, constant position ids, and the second copy of the encoder in a text-only
    file."""
    converted, dropped = {}, []
    for name, tensor in state.items():
        dead_copy = fusion == "text" and name.startswith(("embeddings.", "encoder.", "pooler."))
        if dead_copy or name.endswith("embeddings.position_ids"):
            dropped.append(name)
            continue
        new_name = replace_start(name, NAMES[fusion])
        for ending, new_ending in WEIGHT_NORM_NAMES.items():
            if new_name.endswith(ending):
                new_name = new_name.removesuffix(ending) + new_ending
        if new_name.startswith("text_model.pooler."):
            dropped.append(name)
        else:
            converted[new_name] = tensor
    return converted, dropped


def replace_start(name: str, starts: dict[str, str]) -> str:
    """`name` with the dotted start that `starts` has an entry for replaced by that entry."""
    for start, new_start in starts.items():
        if name.startswith(f"{start}."):
            return new_start + name.removeprefix(start)
    return name


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
            raise ValueError(
                f"max_text_tokens={max_text_tokens} leaves no audio frames in the {positions} positions of the mixer; "
                f"give 1 to {positions - 1}."
            )
    return sizes


def read_backbone(modality: str, model: str | None):
    """The configuration of a backbone, `None` when none is given."""
    try:
        return None if model is None else AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{modality}_model={model!r} gives no configuration: {reason}") from error


def build_config(arguments: argparse.Namespace, state: dict[str, torch.Tensor]) -> RsaCfnConfig:
    """The configuration of a converted state dict, with the original's habits: padding unmasked, no text dropout."""
    names = {"audio": arguments.audio_model, "text": arguments.text_model}
    for modality in FUSION_CLASSES[arguments.fusion].modalities:
        if names[modality] is None:
            raise ValueError(f"fusion={arguments.fusion!r} reads {modality}; give --{modality}_model.")
    config = RsaCfnConfig(
        audio_config=read_backbone("audio", arguments.audio_model),
        text_config=read_backbone("text", arguments.text_model),
        fusion=arguments.fusion,
        pooling_mode=arguments.pooling_mode,
        mask_padding=False,
        freeze_feature_encoder=True,
        max_text_tokens=arguments.max_text_tokens,
        **read_sizes(state, arguments.fusion, arguments.max_text_tokens),
    )
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
    processor = RsaCfnProcessor(
        feature_extractor, tokenizer, max_text_tokens=arguments.max_text_tokens, audio_crop="head"
    )
    processor.save_pretrained(folder)


def load(state: dict[str, torch.Tensor], config: RsaCfnConfig) -> RsaCfnForSequenceClassification:
    """The model, or a `ValueError` that names every tensor that is missing, unknown, of another shape or not finite."""
    model = RsaCfnForSequenceClassification(config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        given = f"fusion={config.fusion!r} and the given backbones"
        raise ValueError(f"The file doesn't fit {given}, by our names of its tensors:\n{error}") from error
    not_finite = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if not_finite:
        raise ValueError(f"The file holds tensors that aren't finite: {first_names(not_finite)}")
    return model


def convert(arguments: argparse.Namespace):
    """Read, rename, check, load and save."""
    given = f"output_dir={arguments.output_dir!r}"
    with owned(arguments.output_dir, given) as folder:
        if holds_files(folder):
            raise ValueError(f"{given} isn't empty; give a new folder, or remove this one.")
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
    codes = "exit codes: 0, all files are written; 1, they can't be; 2, something given can't be used"
    parser = OneLineParser(prog="convert_checkpoint", description=summary, epilog=codes)
    parser.add_argument("checkpoint", help="a state dict: .pth, read without running code, or .safetensors")
    parser.add_argument("--fusion", choices=NAMES, required=True, help="the method the checkpoint was trained with")
    parser.add_argument("--output_dir", required=True, help="folder to save the model in")
    for modality in ("audio", "text"):
        what = f"the {modality} backbone: Hub id, folder, or a JSON file with its configuration"
        parser.add_argument(f"--{modality}_model", help=what)
    parser.add_argument("--pooling_mode", choices=POOLING_MODES[:3], default="mean", help="default: mean")
    parser.add_argument("--max_text_tokens", type=int, default=256, help="length of padded transcripts; default: 256")
    arguments = parser.parse_args(argv)
    try:
        convert(arguments)
    except ValueError as error:
        print("convert_checkpoint:", "\n".join(map(writable, str(error).expandtabs(2).split("\n"))), file=sys.stderr)
        return 2
    except OSError as error:
        reason = f"can't be written ({error.strerror}); make room, or give another folder"
        complain("convert_checkpoint", f"output_dir={arguments.output_dir!r} {reason}")
        return 1
    return 0


if __name__ == "__main__":
    run_script("convert_checkpoint", main)
