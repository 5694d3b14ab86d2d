"""The app of the server, without a socket: each form of a request, what is refused, and what is answered together."""

import asyncio
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from processing_rsa_cfn import RsaCfnPipeline
from scripts import serve_app
from scripts.serve_app import Batches, build_app


def encoded(samples, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.asarray(samples), 16000, **{"format": "WAV"} | options)
    return buffer.getvalue()


def scores(answer):
    return {entry["label"]: entry["score"] for entry in answer}


@pytest.fixture(scope="module")
def pipe(make_model, processor):
    return RsaCfnPipeline(make_model(fusion="early_fusion"), processor, device="cpu")


@pytest.fixture(scope="module")
def client(pipe):
    return TestClient(build_app(Batches(pipe, 4), max_bytes=100_000, max_seconds=2, max_requests=4))


def refused(response, status):
    assert response.status_code == status, response.text
    return response.json()["detail"]


def test_each_form_of_a_request_is_answered_as_the_pipeline_does(client, pipe, clips, texts):
    content = encoded(clips[0])
    alone, both, text = pipe([content, {"audio": content, "text": texts[0]}, {"text": texts[0]}])
    file = {"audio": ("speech.wav", content)}
    for expected, sent in (
        (alone, {"content": content}),
        (alone, {"content": content, "headers": {"Content-Type": "audio/wav"}}),
        (alone, {"files": file, "data": {"text": " "}}),
        (both, {"content": content, "params": {"text": texts[0]}}),
        (both, {"files": file, "data": {"text": texts[0]}}),
        (text, {"files": {"text": (None, texts[0])}}),
        (text, {"params": {"text": texts[0]}}),
    ):
        response = client.post("/predict", **sent)
        assert response.status_code == 200, (sent, response.text)
        assert scores(response.json()) == pytest.approx(scores(expected), abs=1e-5), sent
        assert [entry["label"] for entry in response.json()] == [entry["label"] for entry in expected]
    assert client.get("/health").json() == {"status": "ok"}
    assert "/predict" in client.get("/openapi.json").json()["paths"] and client.get("/docs").status_code == 200


def test_what_cannot_be_used_is_refused_with_the_pipelines_sentence(client, pipe, clips, tmp_path):
    (tmp_path / "secret.wav").write_bytes(encoded(clips[0]))
    content = encoded(clips[0])
    for audio in (b"no audio", content[:-100], encoded(np.zeros(8000))):
        with pytest.raises(ValueError) as expected:
            pipe(audio)
        assert refused(client.post("/predict", content=audio), 422) == str(expected.value)
        assert refused(client.post("/predict", files={"audio": ("a.wav", audio)}), 422) == str(expected.value)
    assert "neither audio nor text is given" in refused(client.post("/predict"), 422)
    assert "audio longer than 0.0333333 minutes" in refused(
        client.post("/predict", content=encoded(np.ones(16000 * 3), format="FLAC")), 422
    )
    assert "it is empty" in refused(client.post("/predict", files={"audio": ("a.wav", b"")}), 422)
    # No path and no URL, and no field that would be dropped.
    for given in ({"audio": str(tmp_path / "secret.wav")}, {"audio": "http://127.0.0.1/"}, {"txt": "정말"}):
        response = client.post("/predict", files={name: (None, value) for name, value in given.items()})
        assert response.status_code == 422, response.text
    assert client.post("/predict", params={"txt": "정말"}, content=content).status_code == 422


def test_a_request_beyond_the_limits_is_read_and_refused(client, pipe, clips):
    assert refused(client.post("/predict", content=bytes(100_001)), 413) == (
        "the request has over 0.1 MB; give a part of it."
    )
    sent = []

    def endless():
        while len(sent) < 1000:
            sent.append(bytes(10_000))
            yield sent[-1]

    assert "0.1 MB" in refused(client.post("/predict", content=endless()), 413)


def test_what_waits_is_answered_together_and_beyond_so_many_others_come_again(pipe, clips, monkeypatch):
    sizes, is_called, may_go = [], threading.Event(), threading.Event()
    content, answer = encoded(clips[0]), RsaCfnPipeline.__call__

    def slow(pipe, rows, **options):
        sizes.append(len(rows))
        is_called.set()
        may_go.wait(60)
        return answer(pipe, rows, **options)

    expected = pipe(content)
    monkeypatch.setattr(RsaCfnPipeline, "__call__", slow)
    batches = Batches(pipe, 3)
    guard = build_app(batches, 100_000, 2, 6)
    with TestClient(guard) as client, ThreadPoolExecutor(6) as threads:
        waiting = [threads.submit(client.post, "/predict", content=content)]
        assert is_called.wait(60)
        waiting += [threads.submit(client.post, "/predict", content=content) for _ in range(5)]
        while batches.waiting.qsize() < 5 and not any(request.done() for request in waiting):
            time.sleep(0.001)
        response = client.post("/predict", content=content)
        assert client.get("/health").status_code == 200
        may_go.set()
        answers = [request.result() for request in waiting]
    assert response.headers["retry-after"] == "1"
    assert refused(response, 503) == "6 requests are under way; come again."
    assert sizes == [1, 3, 2] and guard.under_way == 0
    for answered in answers:
        assert scores(answered.json()) == pytest.approx(scores(expected), abs=1e-5)


def test_what_the_model_has_no_answer_to_is_an_error_of_the_server(pipe, clips, monkeypatch, caplog):
    client = TestClient(build_app(Batches(pipe, 3), 100_000, 2, 4))
    monkeypatch.setattr(RsaCfnPipeline, "__call__", lambda *_, **__: [{"error": "the model's answer isn't finite."}])
    assert refused(client.post("/predict", content=encoded(clips[0])), 500) == "the model's answer isn't finite."
    monkeypatch.setattr(RsaCfnPipeline, "__call__", lambda *_, **__: 1 / 0)
    assert (
        refused(client.post("/predict", content=encoded(clips[0])), 500)
        == "this can't be answered (ZeroDivisionError)."
    )
    monkeypatch.undo()
    assert client.post("/predict", content=encoded(clips[0])).status_code == 200  # it goes on


def test_a_request_that_never_ends_gives_its_place_back(pipe, monkeypatch):
    monkeypatch.setattr(serve_app, "RECEIVING_SECONDS", 0.05)
    guard, sent = build_app(Batches(pipe, 3), 100_000, 2, 4), []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}
    asyncio.run(guard(scope, receive, send))
    assert sent[0]["status"] == 408 and guard.under_way == 0
    sent.clear()
    asyncio.run(guard(scope, lambda: asyncio.sleep(0, {"type": "http.disconnect"}), send))
    assert sent[0]["status"] == 400 and guard.under_way == 0


def test_a_model_of_text_reads_no_recording_and_attributes_are_told(make_model, processor, texts):
    fields = {"attributes": ["valence"], "attribute_ranges": [[1, 5]]}
    pipe = RsaCfnPipeline(make_model(fusion="text", **fields), processor, device="cpu", return_attributes=True)
    client = TestClient(build_app(Batches(pipe, 3), 100_000, 2, 4))
    answer = client.post("/predict", content=b"no audio", params={"text": texts[0]}).json()
    expected = pipe({"text": texts[0]})
    assert answer["attributes"] == pytest.approx(expected["attributes"], abs=1e-5)
    assert scores(answer["scores"]) == pytest.approx(scores(expected["scores"]), abs=1e-5)
