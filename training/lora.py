"""LoRA (https://arxiv.org/abs/2106.09685) by peft: low-rank updates of the backbones train and are merged into them."""

import logging
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from modeling_rsa_cfn import RsaCfnForSequenceClassification


logger = logging.getLogger(__name__)


def add_lora(model: RsaCfnForSequenceClassification, lora: dict) -> None:
    """Freeze the backbones, and give each linear layer of those that are targets an update that trains; what else
    trained still does. Until the updates are merged, `lora`, as [`ModelArguments`] has it, is in the configuration."""
    from peft import LoraConfig, inject_adapter_in_model  # an extra

    backbones = tuple(f"{modality}_model." for modality in lora["targets"])
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    layers = [name for name in layers if name.startswith(backbones)]
    others = [item for name, item in model.named_parameters() if item.requires_grad and not name.startswith(backbones)]
    inject_adapter_in_model(LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], target_modules=layers), model)
    for parameter in others:
        parameter.requires_grad = True
    model.config.lora = lora
    trained, total = model.num_parameters(only_trainable=True), model.num_parameters()
    of = f"rank {lora['rank']} on {len(layers)} layers of {' and '.join(lora['targets'])}"
    logger.info(f"LoRA of {of}: {trained:,} of {total:,} parameters train ({trained / total:.1%}).")


def save_adapter(model: RsaCfnForSequenceClassification, folder: Path, base: str | None) -> None:
    """Updates and fusion alone, as peft saves them; `base` is the saved model that they are of."""
    from peft import get_peft_model_state_dict

    config = model.peft_config["default"]
    config.modules_to_save = ["fusion"]
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(folder)
    weights = get_peft_model_state_dict(model)
    weights |= {name: weight for name, weight in model.state_dict().items() if name.startswith("fusion.")}
    weights = {f"base_model.model.{name}": weight.contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merge_lora(model: RsaCfnForSequenceClassification) -> None:
    """Add the updates to the weights, in place: the model is then one like any other."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
    del model.peft_config, model.config.lora
