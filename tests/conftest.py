"""Fixtures the tests share: small backbones, a processor and a corpus, all made here and offline."""

import gc
import os
import re
import shutil
import tempfile


os.environ["HF_HUB_OFFLINE"] = "1"
# Several processes may run tests, and what a checkpoint brings to run is cached.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="rsa_cfn_tests_")

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Wav2Vec2FeatureExtractor

from configuration_rsa_cfn import RsaCfnConfig
from corpora.demo import write_corpus
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from prepare_dataset import prepare
from processing_rsa_cfn import RsaCfnProcessor
from tests.browser import open_browser
from tests.hub_server import TOKEN, serve
from tests.processes import Processes


# Models this small gain nothing from threads, and on a busy machine threads wait for each other.
torch.set_num_threads(1)

AUDIO_CONFIG = {
    "model_type": "wav2vec2",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}
# Where a processor has AMX, oneDNN's bfloat16 convolution of 8 channels under a kernel of 8, as above, is wrong. These
# convolutions, the tiny backbones', are right, as are wav2vec2's.
HALF_STEM = {"conv_dim": (32, 64, 96), "conv_kernel": (64, 8, 4), "conv_stride": (16, 5, 4)}
TEXT_CONFIG = {
    "model_type": "roberta",
    "vocab_size": 64,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
}
TEXT = "안녕하세요 정말 반가워요"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def make_config():
    """A function that gives the configuration of a model of a few thousand parameters, with fields replaced."""

    def make(audio_config=(), text_config=(), **fields):
        sizes = {"projection_size": 6, "cross_attention_size": 4, "cross_residual_size": 10, "max_text_tokens": 16}
        sizes |= {"residual_size": 10, "attention_size": 4}
        sizes |= {"mixer_size": 6, "mixer_classifier_size": 10, "max_audio_frames": 100}
        return RsaCfnConfig(
            audio_config={**AUDIO_CONFIG, **dict(audio_config)},
            text_config={**TEXT_CONFIG, **dict(text_config)},
            **{**sizes, **fields},
        )

    return make


@pytest.fixture(scope="session")
def half_stem():
    """Fields of an audio backbone that runs in half precision."""
    return HALF_STEM


@pytest.fixture(scope="session")
def make_model(make_config):
    """A function that gives such a model in evaluation mode."""

    def make(**fields):
        torch.manual_seed(0)
        return RsaCfnForSequenceClassification(make_config(**fields)).eval()

    return make


@pytest.fixture(scope="session")
def processor():
    """A feature extractor, and a tokenizer of single syllables."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *dict.fromkeys(TEXT.replace(" ", ""))]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    return RsaCfnProcessor(Wav2Vec2FeatureExtractor(return_attention_mask=True), fast, max_text_tokens=16)


@pytest.fixture(scope="session")
def clips():
    """Three clips of noise at 16 kHz: 0.5 s, 0.125 s and 1 s."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(n).astype(np.float32) for n in (8000, 2000, 16000)]


@pytest.fixture(scope="session")
def texts():
    return [TEXT, "정말", "반가워요 정말"]


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory):
    """The Arrow dataset of a demo corpus of 60 utterances in 6 sessions."""
    folder = tmp_path_factory.mktemp("demo")
    write_corpus(folder / "corpus", num_utterances=60, num_sessions=6)
    prepare("kemdy20", folder / "corpus", folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="session")
def demo_corpus_dir(tmp_path_factory):
    """A demo corpus of 40 utterances in 4 sessions."""
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    write_corpus(folder, num_utterances=40, num_sessions=4)
    return folder


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    """[`Processes`] that are offline."""
    processes = Processes(tmp_path_factory.mktemp("processes"), HF_HUB_OFFLINE="1")
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def hub():
    """A Hub on this machine."""
    with serve() as server:
        yield server


@pytest.fixture(scope="session")
def on_hub(hub, tmp_path_factory):
    """A function that runs Python where that Hub is the Hub, and gives the finished process."""
    processes = Processes(tmp_path_factory.mktemp("on_hub"), HF_ENDPOINT=hub.address, HF_HUB_DISABLE_XET="1")

    def run(*arguments, exit_code=0, **options):
        finished = processes.run(*arguments, **options)
        assert TOKEN not in finished.stdout + finished.stderr
        assert finished.returncode == exit_code, finished.stderr
        return finished

    yield run
    processes.close()


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium."""
    with open_browser(tmp_path / "browser") as browser:
        yield browser


def pytest_collection_finish():
    # Each run of the Trainer collects garbage, of which there is none in what has been imported.
    gc.freeze()


def pytest_unconfigure():
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Nothing is skipped silently: a skip fails unless the module explains it in `EXPLAINED_SKIPS`."""
    report = yield
    if report.skipped:
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        explained = getattr(item.module, "EXPLAINED_SKIPS", {})
        if not any(re.search(pattern, said.removeprefix("Skipped: ")) for pattern in explained):
            report.outcome, report.longrepr = "failed", f"skipped without an explanation: {said}"
    return report
