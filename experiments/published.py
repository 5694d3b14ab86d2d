"""The numbers of the paper's two tables: weighted F1 of one run each, seven classes, a random split of utterances,
and the best of ten epochs, chosen on the 2,560 utterances that are reported."""

from training.arguments import AUDIO_MODEL, TEXT_MODEL, ModelArguments


# Fusion, text backbone and whether the labels are transformed → weighted F1. The audio backbone is always the same.
WEIGHTED_F1 = {
    ("audio", None, True): 0.87966,
    ("text", TEXT_MODEL, True): 0.87552,
    ("late_fusion", TEXT_MODEL, True): 0.88820,
    ("early_fusion", TEXT_MODEL, True): 0.89021,
    ("mlp_mixer", TEXT_MODEL, True): 0.88520,
    ("stack", TEXT_MODEL, True): 0.89107,
    ("residual", TEXT_MODEL, True): 0.89149,
    ("rsa", TEXT_MODEL, True): 0.89165,
    ("rsa_cfn", TEXT_MODEL, False): 0.89043,
    ("rsa_cfn", TEXT_MODEL, True): 0.89254,
    ("rsa_cfn", "xlm-roberta-base", True): 0.89043,
    ("hybrid_fusion", TEXT_MODEL, True): 0.88477,
}


def published_weighted_f1(model_args: ModelArguments, label_transform: bool) -> float | None:
    """What the paper reports for these backbones under this fusion, if it does."""
    if model_args.fusion != "text" and model_args.audio_model != AUDIO_MODEL:
        return None
    text_model = None if model_args.fusion == "audio" else model_args.text_model
    return WEIGHTED_F1.get((model_args.fusion, text_model, label_transform))
