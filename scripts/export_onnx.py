"""
Export a saved model to ONNX, and hold it against PyTorch in onnxruntime.

```bash
pip install onnx onnxscript onnxruntime
python -m scripts.export_onnx models/rsa_cfn models/rsa_cfn_onnx/model.onnx
```
"""

import argparse
import json
import logging
import warnings
from bisect import bisect_right
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from foundation.errors import EXIT_CODES, InputError, OneLineParser, exit_code, run_script
from foundation.files import check_output_dir, owned, writing_all
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from training.model import load_saved


EXTRA = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
LENGTHS = {"input_values": "num_samples", "input_features": "num_frames"}
LARGEST_DRIFT = 0.1  # of a probability, by int8


class Logits(torch.nn.Module):
    """A model whose inputs are those of its fusion, and whose outputs are its logits, and attributes if it has any."""

    def __init__(self, model: RsaCfnForSequenceClassification):
        super().__init__()
        self.model = model

    def forward(
        self, input_values=None, audio_attention_mask=None, input_ids=None, attention_mask=None, input_features=None
    ):
        """As in [`RsaCfnForSequenceClassification`] → `(batch_size, num_labels)`, `(batch_size, num_attributes)`."""
        inputs = (input_values, audio_attention_mask, input_ids, attention_mask)
        outputs = self.model(*inputs, input_features=input_features)
        return outputs.logits if outputs.attributes is None else (outputs.logits, outputs.attributes)


def export(model: RsaCfnForSequenceClassification, file: Path, processor=None, int8: bool = False) -> float:
    """Write the graph of a model's logits, hold it against the model, and give the largest difference of a logit, or
    with `int8` of a probability; with a processor, it and the configuration are written beside the graph.

    The inputs are those of the model's fusion as the processor gives them with `return_tensors="np"`, of any size; a
    row whose mask is 0 lacks the modality. The outputs are `logits`, `(batch_size, num_labels)`, and `attributes`,
    `(batch_size, num_attributes)`, if there are any, with their names as JSON in the metadata. Over 1.5 GB the weights
    lie beside `file`, in one of the same name and `.data`.

    What is too long for `mlp_mixer` is cut at its end, where the model would raise an error. A difference of more than
    `TOLERANCE`, or by `int8` of more than `LARGEST_DRIFT`, is an `InputError`, and nothing is written.
    """
    model.eval()
    inputs = make_inputs(model, batch_size=2, length=0.6)
    of_text, of_audio = ("input_ids", "attention_mask"), LENGTHS[model.config.audio_input]
    axes = {name: {0: "batch_size", 1: "num_tokens" if name in of_text else of_audio} for name in inputs}
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                Logits(model).eval(),
                kwargs=inputs,
                input_names=list(axes),
                output_names=["logits", "attributes"][: 2 if model.config.attributes else 1],
                dynamic_shapes=axes,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        types = [model.config.audio_config.model_type, model.config.text_config.model_type]
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(
            f"torch can't export this model of {' and '.join(types)}; give one of other backbones ({reason})"
        ) from error
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    program.model.metadata_props["labels"] = json.dumps(labels, ensure_ascii=False)
    program.model.metadata_props["fusion"] = model.config.fusion
    if model.config.attributes:
        program.model.metadata_props["attributes"] = json.dumps(model.config.attributes, ensure_ascii=False)
    with writing_all(file.parent) as folder, TemporaryDirectory() as scratch:
        written = Path(scratch if int8 else folder, file.name)
        program.save(written)
        difference = compare(model, written)
        if not difference <= TOLERANCE:
            problem = f"the exported graph is off by {difference:.1e}, more than {TOLERANCE:g}"
            raise InputError(f"{problem}, so it isn't written; give one of other backbones")
        if int8:
            quantise(written, folder / file.name)
            difference = compare(model, folder / file.name, partial(torch.softmax, dim=1))
            if not difference <= LARGEST_DRIFT:
                raise InputError(f"int8 shifts a probability by {difference:.2f}, so it isn't written; give no --int8")
        if processor is not None:
            model.config.save_pretrained(folder)
            processor.save_pretrained(folder)
    return difference


def quantise(file: Path, output: Path) -> None:
    """A graph whose linear layers have weights of 8 bits, 32 of them to a scale. Their inputs stay as they are: if
    they are rounded, one answer in twenty to fifty of a real encoder is another."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    is_large = file.with_name(f"{file.name}.data").exists()
    with _quiet():
        graph = ONNXModel(onnx.load(file))
        graph.replace_gemm_with_matmul()
        quantiser = MatMulNBitsQuantizer(graph.model, block_size=32, is_symmetric=True, bits=8)
        quantiser.process()
        quantiser.model.save_model_to_file(str(output), use_external_data_format=is_large)


def compare(model: RsaCfnForSequenceClassification, file: Path, of: Callable = torch.Tensor.float) -> float:
    """The largest difference of a logit, or of what is made of logits, and of an attribute as a share of its range, in
    onnxruntime from PyTorch; see [`export`]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences = []
    for batch_size, length in ((1, 1.0), (4, 0.8), (3, 0.1), (5, 0.4)):
        inputs = make_inputs(model, batch_size, length)
        with torch.no_grad():
            expected = model(**inputs)
        logits, *told = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        differences.append((of(torch.from_numpy(logits)) - of(expected.logits)).abs().max().item())
        for attributes in told:
            ranges = torch.tensor(model.config.attribute_ranges).diff(dim=1).T
            differences.append(((torch.from_numpy(attributes) - expected.attributes) / ranges).abs().max().item())
    return float(torch.tensor(differences).max())  # NaN where there is one


def make_inputs(model: RsaCfnForSequenceClassification, batch_size: int, length: float) -> dict[str, torch.Tensor]:
    """A batch of noise and random tokens. From row 1 on each row is padded, and where the fusion reads both modalities
    row 2 lacks the audio and row 3 the text. `length` is that of the longest row, from 0 to 1, where 1 is 2 s at 16 kHz
    and 24 tokens, or as much as the model takes."""
    config, generator = model.config, torch.Generator().manual_seed(batch_size)
    family = config.audio_family
    longest = {"audio": family.input_length(32_000), "text": min(24, config.max_text_tokens)}
    if not model.fusion.reads_pooled:
        longest["audio"] = bisect_right(range(longest["audio"]), config.max_audio_frames, key=family.num_frames) - 1
    inputs = {}
    for modality in model.fusion.modalities:
        width = max(round(length * longest[modality]), 2)
        lengths = torch.full((batch_size, 1), width)
        lengths[1:] = width - width // 3
        if len(model.fusion.modalities) == 2:
            lengths[2:3] *= modality == "text"
            lengths[3:4] *= modality == "audio"
        mask = torch.arange(width) < lengths  # (B, width)
        if modality == "audio":
            values = torch.randn(batch_size, width, *family.input_shape, generator=generator)
            inputs |= {family.input_name: values, "audio_attention_mask": mask.int()}
        else:
            ids = torch.randint(config.text_config.vocab_size, (batch_size, width), generator=generator)
            # RoBERTa counts positions by the pad token, which stands nowhere else.
            pad = config.text_config.pad_token_id or 0
            ids = ids.masked_fill(ids == pad, (pad + 1) % config.text_config.vocab_size)
            inputs |= {"input_ids": ids.masked_fill(~mask, pad), "attention_mask": mask.long()}
    return inputs


@contextmanager
def _quiet():
    """Without what the exporter says about its own workings, in dozens of lines."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def check_arguments(model_dir: str, file: Path) -> None:
    """Refuse what would fail after minutes, or write over something."""
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise InputError(f"the export needs {', '.join(missing)}; pip install {' '.join(EXTRA)}")
    if file.suffix != ".onnx":
        raise InputError(f"{file} isn't called .onnx; give a file such as {file.with_suffix('.onnx')}")
    if file.exists():
        raise InputError(f"{file} is there already; give another name, or remove it")
    check_output_dir(file.parent, f"{file.parent}, the folder of {file.name},")
    if file.parent.resolve() != Path(model_dir).resolve() and (file.parent / "config.json").exists():
        raise InputError(f"{file.parent} holds another model; give a file in {model_dir} or in a folder of its own")


def write(arguments: argparse.Namespace, given: str) -> None:
    folder = arguments.output.parent
    check_arguments(arguments.model, arguments.output)
    model, processor = load_saved(arguments.model, "MODEL", dtype=torch.float32)
    with owned(folder, given):
        check_arguments(arguments.model, arguments.output)  # again: another process may have written it since
        is_beside = folder.resolve() == Path(arguments.model).resolve()
        difference = export(model, arguments.output, None if is_beside else processor, arguments.int8)
    of = "probability, by int8" if arguments.int8 else "logit"
    print(f"onnxruntime differs from PyTorch by at most {difference:.1e} in a {of}")
    print(f"Written to {folder}: {arguments.output.name}, config.json with the labels, and the processor")


def main(argv: list[str] | None = None) -> int:
    parser = OneLineParser(prog="export_onnx", description="Export a saved model to ONNX.", epilog=EXIT_CODES)
    parser.add_argument("model", help="folder or Hub id of a saved RSA-CFN model")
    parser.add_argument("output", type=Path, help="the .onnx file; processor and configuration are written beside it")
    parser.add_argument("--int8", action="store_true", help="weights of 8 bits: a graph of a third of the size")
    arguments = parser.parse_args(argv)
    given = f"{arguments.output.parent}, the folder of {arguments.output.name},"
    return exit_code("export_onnx", partial(write, arguments, given), given)


if __name__ == "__main__":
    run_script("export_onnx", main)
