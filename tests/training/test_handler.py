"""What Inference Endpoints send is answered as the pipeline answers it, and opens no file of the server."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile

from processing_rsa_cfn import RsaCfnPipeline
from training.handler import EndpointHandler


@pytest.mark.parametrize("fusion", ["early_fusion", "audio"])
def test_requests_as_endpoints_send_them(fusion, make_model, processor, clips, texts, tmp_path):
    model = make_model(fusion=fusion)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    buffer = io.BytesIO()
    soundfile.write(buffer, clips[1], 16000, format="WAV")
    content, handler = buffer.getvalue(), EndpointHandler(str(tmp_path))
    pipe = RsaCfnPipeline(model, processor, device=handler.pipe.device)

    def scores(answer):
        return np.array([[entry["score"] for entry in sorted(row, key=lambda entry: entry["label"])] for row in answer])

    alone, both = pipe([content, {"audio": content, "text": texts[0]}])
    in_json = base64.b64encode(content).decode()
    rows = [{"audio": in_json, "text": texts[0]}, {"audio": {"bytes": in_json, "path": None}}, in_json]
    for inputs, expected in ((content, [alone]), (in_json, [alone]), (rows[0], [both]), (rows, [both, alone, alone])):
        request = {"inputs": inputs} if inputs is content else json.loads(json.dumps({"inputs": inputs}))
        answer = handler(request)
        np.testing.assert_allclose(scores(answer if inputs is rows else [answer]), scores(expected), atol=1e-5)
    assert handler({"inputs": content, "parameters": {"top_k": 2}}) == handler({"inputs": content})[:2]
    answers = handler({"inputs": [in_json, {}], "parameters": {"on_error": "return"}})
    assert answers[1] == {"error": "neither audio nor text is given; give at least one of them."}
    (tmp_path / "speech.wav").write_bytes(content)
    path = str(tmp_path / "speech.wav")
    for given in (path, {"path": path}, {"audio": {"path": path}}, "http://127.0.0.1/speech.wav"):
        with pytest.raises(ValueError, match="audio isn't base64; give a recording so"):
            handler({"inputs": given})
