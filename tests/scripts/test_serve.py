"""The server: refusals in one line, and in a real process answers, limits, bad requests, and a stop in the middle."""

import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from processing_rsa_cfn import RsaCfnPipeline
from scripts import serve
from scripts.serve import main
from tests.scripts.test_serve_app import encoded, scores
from training.cpu import cpu_functions


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["models/no", "--port", "0"], "MODEL models/no is no folder here and can't be reached"),
        (["models/no", "--port", "99999"], "--host 127.0.0.1 --port 99999 can't be used (bind(): port must be 0-65535"),
        (["models/no", "--host", "192.0.2.1"], "--port 8000 can't be used (Cannot assign requested address"),
        (["models/no", "--max_seconds", "0"], "--max_seconds 0.0 is out of range; give more than 0"),
        (["models/no", "--bf16", "--int8"], "not allowed with argument"),
    ],
)
def test_what_is_refused_says_so_in_one_line(arguments, message, capsys):
    try:
        assert main(arguments) == 2
    except SystemExit as end:
        assert end.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("serve: ") and message in line


def test_missing_packages_are_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "python_multipart" else name)
    assert main(["models/no"]) == 2
    line = "serve: the server needs python-multipart; pip install fastapi uvicorn python-multipart\n"
    assert capsys.readouterr().err == line


@pytest.fixture
def server(processes, make_model, half_stem, processor, tmp_path):
    """A function that starts a server of a tiny model, and gives its process and its port."""
    make_model(fusion="early_fusion", audio_config=half_stem).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    started = []

    def start(*arguments):
        run = processes.start("-m", "scripts.serve", tmp_path / "model", "--port", "0", *arguments)
        started.append(run)
        while "answers at port" not in run.stdout:
            assert run.is_alive, run.stderr
            time.sleep(0.05)
        return run, int(run.stdout.split("at port ")[1].split()[0])

    yield start
    for run in started:
        if run.is_alive:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()


def post(port, body, path="/predict", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


@pytest.mark.slow
@pytest.mark.parametrize("precision", [(), ("--bf16",), ("--int8",)])
def test_clips_of_many_clients_are_answered_as_the_pipeline_does(precision, server, make_model, half_stem, processor):
    run, port = server(*precision, "--batch_size", "8")
    rng = np.random.default_rng(0)
    contents = [encoded(rng.standard_normal(rng.integers(1000, 120_000))) for _ in range(40)]
    model, is_half = make_model(fusion="early_fusion", audio_config=half_stem), "--bf16" in precision
    pipe = RsaCfnPipeline(model, processor, device="cpu", int8="--int8" in precision)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_half), cpu_functions(pipe.device):
        expected = pipe(contents)
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda content: post(port, content), contents))
    for (status, answer), wanted in zip(answers, expected, strict=True):
        assert status == 200, answer
        assert scores(answer) == pytest.approx(scores(wanted), abs=0.02 if is_half else 1e-5)


@pytest.mark.slow
def test_bad_requests_are_refused_and_good_ones_still_answered(server, clips):
    run, port = server("--max_megabytes", "0.1", "--max_seconds", "3")
    rng, content = np.random.default_rng(0), encoded(clips[0])
    form = {"Content-Type": "multipart/form-data; boundary=x"}

    def bad(number):
        noise = rng.bytes(200)
        return [
            (422, noise, {}),
            (422, content[: 50 + number], {}),
            (413, bytes(150_000), {}),
            (422, encoded(np.ones(49_000), format="FLAC"), {}),
            (422, b"", {}),
            (400, noise, form),
            (400, noise, {"Content-Type": "multipart/form-data"}),
            (422, b'--x\r\nContent-Disposition: form-data; name="audio"\r\n\r\n/etc/passwd\r\n--x--\r\n', form),
        ][number % 8]

    expected = [bad(number) for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda sent: post(port, sent[1], **sent[2]), expected))
    for (status, answer), (wanted, *sent) in zip(answers, expected, strict=True):
        assert status == wanted and answer["detail"], (answer, sent)
    assert post(port, content)[0] == 200
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_client_that_leaves_or_sends_too_much_frees_its_place(server, clips):
    run, port = server("--max_megabytes", "0.1", "--max_requests", "1")
    endless = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    endless.putrequest("POST", "/predict")
    endless.putheader("Transfer-Encoding", "chunked")
    endless.endheaders()
    for _ in range(100):  # is more than the limit and what sockets hold
        endless.send(b"2710\r\n" + bytes(10_000) + b"\r\n")
    assert endless.getresponse().status == 413
    assert post(port, encoded(clips[0]))[0] == 200
    leaving = http.client.HTTPConnection("127.0.0.1", port)
    leaving.putrequest("POST", "/predict")
    leaving.putheader("Content-Length", "1000")
    leaving.endheaders()
    leaving.send(b"half")
    while post(port, encoded(clips[0]))[0] != 503:
        pass
    leaving.close()
    while post(port, encoded(clips[0]))[0] != 200:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_under_way_be_answered(number, server, clips):
    run, port = server()
    content = encoded(clips[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders()
    connection.send(content[:500])
    assert post(port, content)[0] == 200
    os.kill(run.pid, number)
    for _ in range(600):
        try:
            post(port, content)
        except ConnectionError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("it still takes requests")
    assert run.is_alive
    connection.send(content[500:])
    response = connection.getresponse()
    assert response.status == 200 and len(json.loads(response.read())) == 7
    assert run.wait() == 0 and "Traceback" not in run.stderr
