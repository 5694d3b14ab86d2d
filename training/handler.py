"""How Inference Endpoints call a model: `--hub_handler` pushes this file with it, as `handler.py`."""

import base64
from collections.abc import Mapping

from transformers import pipeline


class EndpointHandler:
    """The pipeline of the model in a folder."""

    def __init__(self, path: str = ""):
        self.pipe = pipeline("audio-classification", model=path, trust_remote_code=True)

    def __call__(self, data: dict) -> list | dict:
        """
        What the pipeline answers to `data["inputs"]` with `data["parameters"]`. Inputs are the bytes of a recording or,
        in JSON, which has none, their base64; `{"audio": ..., "text": ...}`; or a list of such.

        Raises:
            ValueError: As the pipeline; or audio isn't base64. A path or a URL is none: what the server can read and
                reach isn't for whoever asks it.
        """
        inputs = data.get("inputs")
        inputs = [_read(row) for row in inputs] if isinstance(inputs, list) else _read(inputs)
        return self.pipe(inputs, **(data.get("parameters") or {}))


def _read(given, name: str = "audio"):
    if isinstance(given, Mapping):
        return {name: _read(value, name) for name, value in given.items()}
    if name not in ("audio", "bytes", "path") or not isinstance(given, str):
        return given
    try:
        return base64.b64decode(given, validate=True)
    except ValueError as error:
        raise ValueError("audio isn't base64; give a recording so, or send its bytes as they are.") from error
