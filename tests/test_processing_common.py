"""transformers' own tests of any processor, run on ours; see tests/fetch_common_tests.py."""

import os
import re
import sys
import unittest
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from processing_rsa_cfn import RsaCfnProcessor
from tests.fetch_common_tests import fetch_common_tests
from training.model import train_tokenizer


try:
    sys.path.append(str(fetch_common_tests(timeout=60)))
    # Of a folder that the archive lacks; it would find pictures and films, which no test here looks at.
    sys.modules.setdefault("fetch_hub_objects_for_ci", SimpleNamespace(url_to_local_path=str))
except OSError as error:
    if os.environ.get("CI"):
        raise
    pytest.skip(str(error), allow_module_level=True)

from transformers_tests.test_processing_common import ProcessorTesterMixin


INAPPLICABLE = {
    "test_call_arguments_not_in_attributes": "A processor has its audio_crop; training asks for another, a random one.",
    "test_subprocessor_defaults_preserved_by_kwargs_2_audio": (
        "max_text_tokens is what counts: a tokenizer of the Hub brings along the max_length of another task."
    ),
}
"""Tests that this file skips, each with the reason."""
WITH_WHISPER = {
    **INAPPLICABLE,
    "test_subprocessor_defaults_3_audio": "Whisper's own pads clips to 30 seconds, and has frames as columns.",
}

EXPLAINED_SKIPS = {
    **{re.escape(reason): reason for reason in WITH_WHISPER.values()},
    r"(image|video)_processor attribute not present|images with text": "Two modalities come in, audio and text.",
    r"chat template": "This is no model that talks, and its processor has no chat template.",
    r"requires (librosa|Torchcodec)": "Optional packages, which read what audio_rsa_cfn.py reads here.",
    r"_get_num_multimodal_tokens": "No text has a place for audio in it.",
}
"""Every skip of the common tests, by a pattern of what it says, with why it is right; one that isn't here fails."""


class RsaCfnProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = RsaCfnProcessor
    inapplicable = INAPPLICABLE

    def setUp(self):
        # The processors of transformers bring no code along, and a save of one notes none.
        patcher = patch.object(RsaCfnProcessor, "_auto_class", None)
        patcher.start()
        self.addCleanup(patcher.stop)
        reason = self.inapplicable.get(self._testMethodName)
        if reason:
            self.skipTest(reason)

    @classmethod
    def _setup_feature_extractor(cls):
        return Wav2Vec2FeatureExtractor()

    @classmethod
    def _setup_tokenizer(cls):
        return train_tokenizer(["lower newer", "upper older longer string"])


class WithWhisperTest(RsaCfnProcessorTest):
    inapplicable = WITH_WHISPER

    @classmethod
    def _setup_feature_extractor(cls):
        return WhisperFeatureExtractor()
