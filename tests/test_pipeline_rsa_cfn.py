"""The pipeline: forms of input, windows over long recordings, threads, bad input, and its way with a checkpoint."""

import contextlib
import http.server
import io
import json
import re
import threading
import time
import tracemalloc
import types
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

import processing_rsa_cfn
from configuration_rsa_cfn import EMOTIONS
from processing_rsa_cfn import RsaCfnPipeline, RsaCfnProcessor
from tests.slow import mostly_slow


WINDOW = 8000


@pytest.fixture(scope="module")
def short(processor):
    """A processor whose windows are of half a second."""
    return RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, 0.5, max_text_tokens=16)


@pytest.fixture(scope="module")
def pipe(make_model, short):
    return RsaCfnPipeline(make_model(fusion="early_fusion"), short, device="cpu")


@pytest.fixture(scope="module")
def probabilities(pipe):
    """A function that gives the probabilities of one window, by the model and the processor alone."""

    def probabilities(audio=None, text=None):
        batch = pipe.processor(
            audio=None if audio is None else [audio], text=None if text is None else [text], return_tensors="pt"
        )
        with torch.no_grad():
            return pipe.model(**batch).logits.softmax(dim=-1)[0].numpy()

    return probabilities


def wav(samples, sampling_rate=16000):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def by_label(answer):
    scores = {entry["label"]: entry["score"] for entry in answer}
    return [scores[emotion] for emotion in EMOTIONS]


def row(clip, text=None):
    return {"audio": clip, "sampling_rate": 16000, "text": text}


def assert_same(answers, expected):
    assert len(answers) == len(expected)
    for answer, other in zip(answers, expected):
        np.testing.assert_allclose(by_label(answer), by_label(other), atol=1e-5)


def test_the_answer_is_the_models_and_sorted(pipe, probabilities, clips, texts):
    clip = clips[1]
    for audio, text in ((clip, texts[0]), (clip, None), (None, texts[0]), (clip, "")):
        answer = pipe({"audio": audio, "sampling_rate": 16000, "text": text})
        np.testing.assert_allclose(by_label(answer), probabilities(audio, text), atol=1e-6)
        scores = [entry["score"] for entry in answer]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
    assert pipe(row(clip), top_k=2) == pipe(row(clip))[:2]


def test_attributes_are_given_where_they_are_asked_for(make_model, short, clips, texts):
    model = make_model(fusion="early_fusion", attributes=["valence", "arousal"], attribute_ranges=[[1, 5], [0, 1]])
    pipe, long = RsaCfnPipeline(model, short, device="cpu"), row(clips[2], texts[0])
    answer = pipe(long, return_attributes=True, top_k=2)
    assert answer["scores"] == pipe(long)[:2]
    windows = [window for _, window in short.windows(clips[2], 16000)]
    with torch.no_grad():
        batch = short(audio=windows, text=texts[:1] * len(windows), return_tensors="pt")
        expected = model(**batch).attributes.mean(dim=0).tolist()
    assert answer["attributes"] == pytest.approx(dict(zip(("valence", "arousal"), expected)), abs=1e-5)
    plain = RsaCfnPipeline(make_model(fusion="early_fusion"), short, device="cpu", return_attributes=True)
    assert plain(row(clips[1]))["attributes"] == {} and len(plain(row(clips[1]))["scores"]) == 7


def test_every_form_of_audio_gives_the_same_answer(pipe, clips, tmp_path):
    clip = clips[1]
    (tmp_path / "speech.wav").write_bytes(wav(clip))
    path = tmp_path / "speech.wav"
    forms = [
        path,
        str(path),
        path.read_bytes(),
        {"bytes": path.read_bytes(), "path": "speech.wav"},
        io.BytesIO(wav(clip)),
    ]
    forms += [{"bytes": None, "path": str(path)}, {"array": clip, "sampling_rate": 16000}]
    rows = [{"audio": form} for form in forms]
    rows += [row(clip), row(torch.from_numpy(clip)), row(clip.tolist())]
    # As transformers' own audio pipelines take them.
    rows += [{"raw": clip, "sampling_rate": 16000}, {"array": clip, "sampling_rate": 16000}, {"path": str(path)}]
    rows += [{"audio": {"raw": clip, "sampling_rate": 16000}}, {"bytes": path.read_bytes(), "path": None}]
    expected = pipe(row(clip))
    for given in rows:
        assert pipe(given) == expected


class Decoder:
    """As torchcodec's, whose samples are of shape `(num_channels, num_samples)`."""

    def __init__(self, clip):
        self.samples = types.SimpleNamespace(data=torch.from_numpy(clip)[None], sample_rate=16000)

    def get_all_samples(self):
        return self.samples


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number]


@pytest.mark.parametrize("fusion", ["early_fusion", "audio"])
def test_audio_alone_is_taken_as_other_audio_pipelines_take_it(fusion, make_model, short, clips, served, tmp_path):
    """By the name of their task, from a saved checkpoint."""
    make_model(fusion=fusion).save_pretrained(tmp_path / "saved")
    short.save_pretrained(tmp_path / "saved")
    pipe = pipeline("audio-classification", model=str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    path, content, clip = tmp_path / "speech.wav", wav(clips[1]), clips[1]
    path.write_bytes(content)
    forms = [path, str(path), content, bytearray(content), io.BytesIO(content), f"{served}/speech.wav"]
    forms += [{"bytes": content, "path": "speech.wav"}, {"bytes": None, "path": str(path)}, Decoder(clip)]
    forms += [{"array": clip, "sampling_rate": 16000, "path": "speech.wav"}, {"raw": clip, "sampling_rate": 16000}]
    forms += [clip, torch.from_numpy(clip), clip.tolist()]
    expected = pipe({"audio": content})
    for given in forms:
        assert pipe(given) == expected
    assert pipe(forms[6:]) == pipe(tuple(forms[6:])) == list(pipe(given for given in forms[6:])) == [expected] * 8
    sounds = Dataset.from_dict({"sound": [{"bytes": content, "path": None}] * 2, "file": ["a", "b"]})
    sounds = sounds.cast_column("sound", Audio(16000))
    for given in (KeyDataset(sounds, "sound"), sounds["sound"], sounds.to_iterable_dataset()["sound"]):
        assert list(pipe(given)) == [expected] * 2
    assert list(pipe(KeyDataset(Rows([{"clip": clip}] * 2), "clip"))) == [expected] * 2


def test_scores_are_what_is_asked_for(make_model, short, clips, texts):
    model = make_model(fusion="early_fusion")
    pipe = RsaCfnPipeline(model, short, device="cpu", top_k=1, function_to_apply="none")
    with torch.no_grad():
        logits = model(**short(audio=[clips[1]], text=texts[:1], return_tensors="pt")).logits[0]
    given = row(clips[1], texts[0])
    assert len(pipe(given)) == 1 and pipe(given)[0]["score"] == pytest.approx(logits.max().item(), abs=1e-5)
    for function, scores in (("none", logits), ("sigmoid", logits.sigmoid()), ("softmax", logits.softmax(dim=0))):
        answer = by_label(pipe(given, top_k=None, function_to_apply=function))
        np.testing.assert_allclose(answer, scores.numpy(), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_whatever_a_row_raises_stays_with_it(batch_size, pipe, clips, texts, monkeypatch):
    class Broken:
        def get_all_samples(self):
            raise KeyError("stream 0")

    class Odd(dict):
        def __iter__(self):
            raise RuntimeError("gone")

    good, prepare = [row(clips[1], texts[0]), {"text": texts[1]}], type(pipe.processor).__call__

    def prepare_but_not_words_of(self, *args, text=None, **kwargs):
        if text is not None and "bad" in text:
            raise MemoryError("too much")
        return prepare(self, *args, text=text, **kwargs)

    expected = pipe(good)
    monkeypatch.setattr(type(pipe.processor), "__call__", prepare_but_not_words_of)
    answers = pipe(
        [good[0], {"text": "bad"}, Odd(text=texts[0]), Broken(), good[1]], batch_size=batch_size, on_error="return"
    )
    assert_same([answers[0], answers[-1]], expected)
    assert [*answers[1], *answers[2], *answers[3]] == ["error"] * 3
    assert (answers[1]["error"], answers[2]["error"]) == ("MemoryError: too much", "RuntimeError: gone")
    with pytest.raises(MemoryError):
        pipe({"text": "bad"})


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives the wav of the server, as the path says."""

    def log_message(self, *args):
        pass

    def start(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self):
        name, content = urlsplit(self.path).path.strip("/"), self.server.content
        half, port = content[: len(content) // 2], self.server.server_port
        if unquote(name) in ("speech.wav", "정말 고마워요.wav"):
            self.start(200, Content_Length=len(content))
            self.wfile.write(content)
        elif name == "half":
            self.start(200, Content_Length=len(content))
            self.wfile.write(half)
        elif name == "half-without-length":
            self.start(200)
            self.wfile.write(half)
        elif name.startswith("chunks"):
            self.start(200, Transfer_Encoding="chunked")
            self.wfile.write(b"%x\r\n%b\r\n" % (len(half), half))
            if name == "chunks":
                self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content) - len(half), content[len(half) :]))
        elif name == "part":
            self.start(206, Content_Length=len(half))
            self.wfile.write(half)
        elif name.startswith("drip"):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"X: " if name == "drip-header" else b"\r\n"))
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"0")
                    time.sleep(0.02)
        elif name in ("away", "ftp", "home"):
            to = {"away": f"http://127.0.0.2:{port}", "ftp": "ftp://127.0.0.1", "home": f"http://localhost:{port}"}
            self.start(302, Location=f"{to[name]}/speech.wav?token=secret")
        else:
            self.start(404)


@pytest.fixture
def served(clips):
    with http.server.ThreadingHTTPServer(("", 0), Handler) as server:
        server.daemon_threads, server.content = True, wav(clips[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_url_is_downloaded(pipe, clips, served):
    expected = pipe(row(clips[1]))
    for path in ("speech.wav?token=secret#part", "정말 고마워요.wav", "chunks", "home", "away"):
        assert pipe({"audio": f"{served}/{path}"}) == expected
    assert pipe({"audio": served.replace("http://", "HTTP://user:secret@") + "/speech.wav"}) == expected


REFUSED = {
    "nowhere.wav": "HTTP status 404",
    "half": r"the last \d+ bytes didn't come",
    "chunks-cut": "IncompleteRead",
    "part": "HTTP status 206",
    "ftp": "unknown url type: ftp",
    "drip": "it takes longer than 0.3 seconds",
    "drip-header": "it takes longer than 0.3 seconds",
}


@pytest.mark.parametrize("path", REFUSED)
def test_half_a_download_is_refused_and_no_server_is_waited_for(path, pipe, served, monkeypatch):
    monkeypatch.setattr(processing_rsa_cfn, "DOWNLOAD_SECONDS", 0.3 if "drip" in path else 60)
    before = threading.active_count()
    (answer,) = pipe([{"audio": f"{served}/{path}?token=secret"}], on_error="return")
    shown = re.escape(f"audio {served}/{path} can't be downloaded")
    assert re.fullmatch(rf"{shown} \({REFUSED[path]}\); give a URL that answers\.", answer["error"])
    while threading.active_count() > before + 1:  # the server's
        time.sleep(0.01)


def test_what_a_server_cuts_without_saying_so_is_cut_off(pipe, served):
    with pytest.raises(ValueError, match="it is cut off or damaged: it has .* bytes of sound"):
        pipe({"audio": f"{served}/half-without-length"})


def test_a_public_server_leads_to_no_private_address(pipe, served, monkeypatch):
    addresses = {
        "127.0.0.1": types.SimpleNamespace(is_global=True),
        "127.0.0.2": types.SimpleNamespace(is_global=False),
    }
    monkeypatch.setattr(processing_rsa_cfn.ipaddress, "ip_address", addresses.get)
    with pytest.raises(
        ValueError, match=r"/away can't be downloaded \(it is redirected to an address that isn't public"
    ):
        pipe({"audio": f"{served}/away"})


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://user:secret@127.0.0.1:9/a.wav?secret", r"audio http://...@127.0.0.1:9/a.wav can't be .*refused"),
        ("http://user:se/secret@127.0.0.1/a.wav", "audio http://...@127.0.0.1/a.wav can't be .*InvalidURL"),
        ("ftp://user:secret@127.0.0.1/a.wav", "ftp is neither http nor https"),
        ("file:///etc/hostname", "file is neither http nor https"),
        ("http://" + "정" * 70 + "/a.wav", "can't be downloaded"),
        ("http:///a.wav", "no host given"),
        ("http://127.0.0.1:9/\0\n\ud83d.wav", "refused"),
    ],
)
def test_a_url_that_leads_nowhere_keeps_its_secrets(url, message, pipe):
    with pytest.raises(ValueError, match=message) as error:
        pipe({"audio": url})
    assert "secret" not in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_lists_generators_and_datasets_give_what_single_rows_give(batch_size, pipe, clips, texts):
    """Rows of one window and of several, with and without audio and text, in one batch."""
    rows = [row(clips[2], texts[0]), row(clips[1]), {"text": texts[1]}, row(clips[0], texts[2])]
    expected = [pipe(given) for given in rows]
    assert_same(pipe(rows, batch_size=batch_size), expected)
    assert_same(pipe(tuple(rows), batch_size=batch_size), expected)
    assert_same(list(pipe((given for given in rows), batch_size=batch_size)), expected)
    recordings = [{"bytes": wav(given["audio"]) if "audio" in given else None, "path": None} for given in rows]
    dataset = Dataset.from_dict({"audio": recordings, "text": [given["text"] for given in rows]})
    dataset = dataset.cast_column("audio", Audio(sampling_rate=16000)).add_column("label", [0] * len(rows))
    assert_same(list(pipe(dataset, batch_size=batch_size)), expected)
    assert_same(list(pipe(dataset.to_iterable_dataset(), batch_size=batch_size)), expected)
    assert pipe([]) == []


def test_a_stream_is_read_as_it_is_answered(pipe, texts):
    read = []

    def rows():
        for number in range(1000):
            read.append(number)
            yield {"text": texts[0]}

    next(iter(pipe(rows())))
    assert len(read) < 5


def test_a_long_recording_is_the_mean_of_its_windows(pipe, probabilities, texts):
    clip = np.random.default_rng(0).standard_normal(19000).astype(np.float32)
    starts = [0, 4000, 8000, 11000]
    expected = np.mean([probabilities(clip[start : start + WINDOW], texts[0]) for start in starts], axis=0)
    for audio in (clip, {"bytes": wav(clip)}):
        np.testing.assert_allclose(by_label(pipe(row(audio, texts[0]))), expected, atol=1e-6)
        assert_same([pipe(row(audio, texts[0]), batch_size=3)], [pipe(row(audio, texts[0]))])


@pytest.fixture(scope="module")
def by_its_task(make_model, short, tmp_path_factory):
    """A pipeline with attributes, as a user of the Hub makes it."""
    folder = tmp_path_factory.mktemp("saved")
    fields = {"attributes": ["valence"], "attribute_ranges": [[1, 5]]}
    RsaCfnPipeline(make_model(fusion="early_fusion", **fields), short).save_pretrained(folder)
    return pipeline("audio-classification", model=str(folder), trust_remote_code=True, device="cpu", batch_size=2)


@pytest.mark.parametrize("options", [{}, {"return_attributes": True, "top_k": 2, "unsure_below": 0.9}])
def test_each_window_answers_as_it_does_alone(options, by_its_task, clips, texts):
    """Of a recording that is silent for two windows, and ends within one."""
    clip = np.concatenate([clips[0], np.zeros(3 * WINDOW // 2, np.float32), clips[2]])[: 6 * WINDOW + 1234]
    given = [{"audio": {"bytes": wav(clip)}, "text": texts[0]}, {"text": texts[1]}, row(clips[1][:2000])]
    answer, *others = by_its_task(given, return_windows=True, **options)
    plain = by_its_task(given[0], **options)
    whole = {name: value for name, value in answer.items() if name != "windows"}
    assert whole == (plain if "return_attributes" in options else {"scores": plain})
    starts = [*range(0, len(clip) - WINDOW, WINDOW // 2), len(clip) - WINDOW]
    starts = [start for start in starts if clip[start : start + WINDOW].any()]
    assert 5 < len(starts) < 11
    assert [(window["start"], window["end"]) for window in answer["windows"]] == [
        (start / 16000, (start + WINDOW) / 16000) for start in starts
    ]
    for start, window in zip(starts, answer["windows"]):
        alone = by_its_task(row(clip[start : start + WINDOW], texts[0]), **options)
        alone = alone if "return_attributes" in options else {"scores": alone}
        assert window.keys() - {"start", "end"} == alone.keys()
        for entry, expected in zip(window["scores"], alone["scores"], strict=True):
            assert entry == {"label": expected["label"], "score": pytest.approx(expected["score"], abs=1e-5)}
        assert window.get("attributes") == pytest.approx(alone.get("attributes"), abs=1e-5)
    assert others[0]["windows"] == []
    assert [(window["start"], window["end"]) for window in others[1]["windows"]] == [(0, 0.125)]


def test_each_window_is_read_with_what_is_said_in_it(pipe, clips):
    """By the times that a recogniser tells, of which the last may have no end."""
    clip = np.concatenate(clips)[: 2 * WINDOW]
    spoken = [("정말", (0, 0.2)), (" 반가워요", (0.3, 0.6)), ("안녕하세요", (0.3, 5.0)), ("요", (0.95, None))]
    text = [{"text": word, "timestamp": times} for word, times in spoken]
    windows = pipe(row(clip, text), return_windows=True)["windows"]
    for window, said in zip(windows, ("정말 반가워요", "반가워요 안녕하세요", "안녕하세요 요"), strict=True):
        alone = pipe(row(clip[round(16000 * window["start"]) :][:WINDOW], said))
        assert_same([window["scores"]], [alone])
        assert window["text"] == said
    silent = [{"text": "정말", "timestamp": (0.1, 0.2)}]
    last = pipe(row(clip, silent), return_windows=True)["windows"][-1]
    assert_same([last["scores"]], [pipe(row(clip[WINDOW:]))])
    assert last["text"] is None
    assert_same([pipe({"text": text})], [pipe({"text": "정말 반가워요 안녕하세요 요"})])


def test_silence_has_no_part_in_a_long_recording(pipe, clips):
    clip = clips[0]
    padded = np.concatenate([np.zeros(3 * WINDOW, np.float32), clip, np.zeros(3 * WINDOW, np.float32)])
    starts = (-WINDOW // 2, 0, WINDOW // 2)
    windows = [padded[3 * WINDOW + start :][:WINDOW] for start in starts]
    expected = np.mean([by_label(pipe(row(window))) for window in windows], axis=0)
    np.testing.assert_allclose(by_label(pipe(row(padded))), expected, atol=1e-6)


def test_two_hours_need_no_more_memory_than_minutes(make_model, processor, tmp_path):
    minute = np.random.default_rng(0).uniform(-0.5, 0.5, 60 * 8000).astype(np.float32)
    with soundfile.SoundFile(tmp_path / "hours.wav", "w", 8000, 1, "PCM_U8") as sound:
        for _ in range(120):
            sound.write(minute)
    processor = RsaCfnProcessor(Wav2Vec2FeatureExtractor(sampling_rate=8000), processor.tokenizer)
    pipe = RsaCfnPipeline(make_model(fusion="audio"), processor, device="cpu")
    tracemalloc.start()
    windows = [len(window["waveform"]) for window in pipe.preprocess({"audio": str(tmp_path / "hours.wav")})]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert windows == [48000] * 2399
    assert peak < 20e6  # the whole of it: 230 MB


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "neither audio nor text is given"),
        ({"audio": None, "text": None}, "neither audio nor text is given"),
        ({"audio": {"bytes": None, "path": None}}, "neither audio nor text is given"),
        ({"text": " \n"}, "text is empty"),
        ({"text": 3}, "text is a int; give a str, words with times, or leave it out"),
        ({"text": ["정말"]}, "text is a list; give a str"),
        ({"text": [{"text": "정말", "timestamp": (None, 1)}]}, "text is a list; give a str"),
        ({"text": []}, "text is empty"),
        ({"text": "정말", "audios": "a.wav"}, "unknown key 'audios'; give only 'audio', 'text', 'sampling_rate'"),
        ({"text": "정말", "audio": {"file": "a.wav"}}, "unknown key 'file'; give only 'array', 'raw', 'bytes', 'path'"),
        ({"text": "정말", "raw": np.ones(WINDOW)}, "samples with sampling_rate=None"),
        ({"audio": np.ones(WINDOW, int), "sampling_rate": 16000}, "samples of int64"),
        ({"audio": b"These are words, not samples."}, "audio can't be read"),
        ({"audio": "nowhere.wav"}, "audio can't be read .*nowhere.wav isn't there"),
        ({"audio": wav(np.zeros(WINDOW)), "text": "정말"}, "audio is silent"),
        ({"audio": wav(np.zeros(5 * WINDOW))}, "audio is silent"),
        ({"audio": wav(np.zeros(0))}, "audio has no samples"),
        ({"audio": np.zeros(WINDOW, np.float32), "text": "정말"}, "samples with sampling_rate=None"),
        ({"audio": {"array": np.ones(WINDOW)}}, "samples with sampling_rate=None"),
        ({"audio": np.full(WINDOW, np.nan), "sampling_rate": 16000}, "NaN"),
        ({"audio": np.ones((2, WINDOW)), "sampling_rate": 16000}, r"shape \(2, 8000\)"),
        ("nowhere.wav", "audio can't be read .*nowhere.wav isn't there"),
        ("file:///etc/hostname", "file is neither http nor https"),
        (b"These are words, not samples.", "audio can't be read"),
        (np.ones(WINDOW), "audio is silent"),
        (np.ones((2, WINDOW)), r"shape \(2, 8000\)"),
        (None, "neither audio nor text is given"),
    ],
)
def test_bad_input_is_one_line(given, message, pipe, texts):
    with pytest.raises(ValueError, match=message) as error:
        pipe(given)
    assert "\n" not in str(error.value)
    # Told for its row, and the others are answered.
    good = {"text": texts[0]}
    for batch_size in (1, 2):
        answers = pipe([good, given, good], batch_size=batch_size, on_error="return")
        assert answers[1] == {"error": str(error.value)}
        assert_same([answers[0], answers[2]], [pipe(good)] * 2)


def test_a_recording_that_breaks_off_is_no_answer(pipe, texts):
    """What was read until then isn't passed off as the whole."""
    clip = np.random.default_rng(0).standard_normal(61 * 16000).astype(np.float32)
    clip[-1] = np.nan
    answers = pipe([{"audio": wav(clip)}, {"text": texts[0]}], batch_size=4, on_error="return")
    assert answers[0] == {"error": "audio holds NaN or infinite samples; give finite ones, between -1 and 1."}
    assert_same(answers[1:], [pipe({"text": texts[0]})])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_isnt_finite_is_no_answer_and_spoils_no_other(batch_size, make_model, short, clips, texts):
    pipe = RsaCfnPipeline(make_model(fusion="rsa_cfn"), short, device="cpu", batch_size=batch_size)
    others = [row(clips[2], texts[1]), {"text": texts[1]}]
    expected = pipe(others)
    loud = np.append(clips[1], np.float32(1e30))
    token = short(text=texts[0])["input_ids"][0][1]
    with torch.no_grad():
        pipe.model.text_model.get_input_embeddings().weight[token] = torch.nan
    unanswered = [row(loud, texts[1]), {"text": texts[0]}, {"audio": wav(loud)}]
    given = [unanswered[0], others[0], unanswered[1], others[1], unanswered[2]]
    answers = pipe(given, on_error="return")
    reasons = ["audio holds samples of up to 1e", "the model's answer isn't finite; give", "audio holds samples of"]
    for answer, bad, reason in zip(answers[::2], unanswered, reasons, strict=True):
        assert answer["error"].startswith(reason)
        with pytest.raises(ValueError, match=reason[:20]):
            pipe(bad)
    assert_same(answers[1::2], expected)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"top_k": 0}, "top_k=0 is out"),
        ({"on_error": "skip"}, "'skip' is unknown"),
        ({"function_to_apply": "tanh"}, "'tanh' is unknown; give one of softmax, sigmoid, none"),
    ],
)
def test_an_illegal_option_is_refused(options, message, pipe, texts):
    with pytest.raises(ValueError, match=message):
        pipe({"text": texts[0]}, **options)


@pytest.mark.parametrize("fusion, other", [("audio", "text"), ("text", "audio")])
def test_a_model_of_one_modality_needs_that_one(fusion, other, make_model, short, clips, texts):
    pipe = RsaCfnPipeline(make_model(fusion=fusion), short, device="cpu")
    both = {"audio": {"array": clips[1], "sampling_rate": 16000}, "text": texts[0]}
    assert pipe(both) == pipe({fusion: both[fusion]})
    with pytest.raises(ValueError, match=rf"fusion='{fusion}'\) reads nothing but {fusion}; give {fusion}"):
        pipe({other: both[other]})


def test_a_model_in_training_mode_doesnt_answer_at_random(make_model, short, texts):
    pipe = RsaCfnPipeline(make_model(fusion="rsa_cfn").train(), short, device="cpu")
    assert pipe({"text": texts[0]}) == pipe({"text": texts[0]})


FEATURES = {
    "whisper": (
        {"d_model": 16, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "encoder_layers": 2, "num_mel_bins": 8},
        WhisperFeatureExtractor(feature_size=8),
    ),
    "wav2vec2-bert": (
        {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2},
        SeamlessM4TFeatureExtractor(),
    ),
}


@pytest.mark.parametrize("model_type", mostly_slow(FEATURES, "whisper"))
def test_a_model_of_features_answers_alike_in_batches_and_in_threads(model_type, make_model, short, clips, texts):
    sizes, extractor = FEATURES[model_type]
    model = make_model(fusion="early_fusion", audio_config={"model_type": model_type, **sizes})
    pipe = RsaCfnPipeline(model, RsaCfnProcessor(extractor, short.tokenizer, 0.5, max_text_tokens=16), device="cpu")
    long = np.concatenate(clips)
    rows = [row(long, texts[0]), row(long[:100]), {"text": texts[1]}, row(clips[1], texts[2]), row(clips[2])]
    expected = [pipe(given) for given in rows]
    windows = [pipe(row(window, texts[0])) for _, window in pipe.processor.windows(long)]
    np.testing.assert_allclose(
        by_label(expected[0]), np.mean([by_label(window) for window in windows], axis=0), atol=1e-6
    )
    assert_same(pipe(rows, batch_size=4), expected)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_allclose(by_label(pipe(rows[0])), by_label(expected[0]), atol=0.02)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pipe, rows * 4)) == expected * 4


@pytest.mark.parametrize("num_calls", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_calls_from_eight_threads_answer_as_one_by_one(num_calls, make_model, short, clips, texts):
    """With the parts of a model that are told things beside their inputs: group norm and the weighing of layers."""
    audio_config = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
    model = make_model(fusion="early_fusion", audio_config=audio_config, use_weighted_layer_sum=True)
    pipe = RsaCfnPipeline(model, short, device="cpu")
    rows = [row(clips[2][: 1500 * (1 + number)], (*texts, None)[number % 4]) for number in range(7)]
    rows += [{"text": text} for text in texts]
    expected = [pipe(given) for given in rows]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: pipe(rows[number % len(rows)]), range(num_calls)))
    assert all(answer == expected[number % len(rows)] for number, answer in enumerate(answers))


RELOAD = """
import json, sys
from transformers import pipeline

rows = [{"audio": "speech.wav", "text": sys.argv[1]}, {"audio": "speech.wav"}, {"text": sys.argv[1]}]
pipe = pipeline(model="checkpoint", trust_remote_code=True, device="cpu")
pipe.save_pretrained("again")
for given in (
    pipe,
    pipeline(model="again", trust_remote_code=True, device="cpu"),
    pipeline("audio-classification", model="again", trust_remote_code=True, device="cpu"),
):
    print(json.dumps([given(rows), given.task]))
"""


def test_a_checkpoint_brings_its_pipeline_into_a_new_process(make_model, short, clips, texts, processes, tmp_path):
    """From another directory, offline, with an empty modules cache, and without this repository on the path."""
    model = make_model(fusion="rsa_cfn")
    model.save_pretrained(tmp_path / "checkpoint")
    short.save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "speech.wav").write_bytes(wav(clips[2]))
    finished = processes.run("-c", RELOAD, texts[0], cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    rows = [row(clips[2], texts[0]), row(clips[2]), {"text": texts[0]}]
    expected = RsaCfnPipeline(model, short, device="cpu")(rows)
    lines = finished.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        answers, task = json.loads(line)
        assert task == "audio-classification"
        assert_same(answers, expected)
    for folder in ("checkpoint", "again"):
        code = {path.name for path in (tmp_path / folder).glob("*.py")}
        assert {"audio_rsa_cfn.py", "processing_rsa_cfn.py", "modeling_rsa_cfn.py"} <= code
