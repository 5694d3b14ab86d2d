"""
Join trained models into one that AutoModel loads and every script takes: the mean of their probabilities, or with
`--soup` a model of the mean of their weights (Wortsman et al. 2022).

```bash
python -m scripts.ensemble models/member1 models/member2 --output_dir models/ensemble
python -m scripts.ensemble models/member1 models/member2 --soup --output_dir models/soup
```
"""

import argparse
from functools import partial

import torch

from foundation.errors import EXIT_CODES, InputError, OneLineParser, exit_code, run_script
from foundation.files import holds_files, owned, writing_all
from fusion_rsa_cfn import FUSION_CLASSES
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from processing_rsa_cfn import RsaCfnProcessor
from training.model import load_saved


PROGRAM = "ensemble"


def read_members(names: list[str]) -> tuple[list[RsaCfnForSequenceClassification], RsaCfnProcessor]:
    """Models that read the same inputs and know the same classes, and their processor."""
    if len(names) < 2:
        raise InputError(f"{names[0]} alone is no ensemble; give two models or more")
    models, described = [], []
    for name in names:
        model, processor = load_saved(name, "MODEL")
        if model.config.members:
            raise InputError(f"{name} is an ensemble itself; give its members")
        models.append(model)
        limits = {field: value for field, value in processor.to_dict().items() if not isinstance(value, dict)}
        described.append(
            {
                "classes": list(model.config.id2label.items()),
                "attributes": model.config.attributes,
                "modalities": FUSION_CLASSES[model.config.fusion].modalities,
                "feature extractor": processor.feature_extractor.to_dict(),
                "tokenizer": processor.tokenizer.get_vocab(),
                "limits": limits | {"audio_crop": processor.audio_crop},
            }
        )
    for name, about in zip(names, described):
        if unlike := [what for what in about if about[what] != described[0][what]]:
            raise InputError(f"{name} differs from {names[0]} in its {' and '.join(unlike)}; give models of one kind")
    return models, processor


def join(models: list[RsaCfnForSequenceClassification]) -> RsaCfnForSequenceClassification:
    """One model whose probabilities are the mean of those of all."""
    config = type(models[0].config).from_dict(models[0].config.to_dict())
    config.members = [model.config.to_dict() for model in models[1:]]
    joined = RsaCfnForSequenceClassification(config).eval()
    own, *others = [model.state_dict() for model in models]
    state = own | {f"members.{i}.{name}": tensor for i, other in enumerate(others) for name, tensor in other.items()}
    joined.load_state_dict(state)
    return joined


def mean_of_weights(names: list[str], models: list[RsaCfnForSequenceClassification]) -> RsaCfnForSequenceClassification:
    """The first model, with the mean of the weights of all; they have to be of one architecture."""
    states = [model.state_dict() for model in models]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    for name, model, shape in zip(names, models, shapes):
        if (model.config.fusion, shape) != (models[0].config.fusion, shapes[0]):
            raise InputError(f"--soup takes models of one architecture, and {name} has another than {names[0]}")
    mean = {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in states[0].items()
    }
    models[0].load_state_dict(mean)
    return models[0]


def write(arguments: argparse.Namespace, given: str) -> None:
    with owned(arguments.output_dir, given) as folder:
        if holds_files(folder):
            raise InputError(f"{given} isn't empty; give a new folder, or remove this one")
        models, processor = read_members(arguments.models)
        model = mean_of_weights(arguments.models, models) if arguments.soup else join(models)
        with writing_all(folder) as beside:
            model.save_pretrained(beside)
            processor.save_pretrained(beside)
    what = "the mean weights" if arguments.soup else "the mean probabilities"
    print(f"{what} of {len(models)} models are in {arguments.output_dir}; score them by")
    print(f"python run_classification.py --do_eval --model_name_or_path {arguments.output_dir} --output_dir ...")


def main(argv: list[str] | None = None) -> int:
    parser = OneLineParser(prog=PROGRAM, description="Join trained models into one.", epilog=EXIT_CODES)
    parser.add_argument("models", nargs="+", help="folders or Hub ids of models of the same inputs and classes")
    parser.add_argument("--output_dir", required=True, help="a new folder")
    parser.add_argument("--soup", action="store_true", help="one model of the mean weights, not all of them")
    arguments = parser.parse_args(argv)
    given = f"--output_dir {arguments.output_dir}"
    return exit_code(PROGRAM, partial(write, arguments, given), given)


if __name__ == "__main__":
    run_script(PROGRAM, main)
