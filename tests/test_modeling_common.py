"""transformers' own tests of any model and any configuration, run on ours; see tests/fetch_common_tests.py."""

import os
import re
import sys
import unittest

import pytest
import torch

from configuration_rsa_cfn import RsaCfnConfig
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from tests.fetch_common_tests import fetch_common_tests


try:
    sys.path.append(str(fetch_common_tests(timeout=60)))
except OSError as error:
    if os.environ.get("CI"):
        raise
    pytest.skip(str(error), allow_module_level=True)

from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask


TWO_BACKBONES = "Each backbone has hidden states of its own, audio_hidden_states and text_hidden_states."
POOLED = "get_audio_features and get_text_features return the pooled tensor, not a model output."
INAPPLICABLE = {
    "test_reverse_loading_mapping": "Only some fusions have each name; tests/test_modeling_rsa_cfn.py has all of them.",
    "test_attention_outputs": "attentions are the fusion's, over features; tests/test_modeling_rsa_cfn.py has them.",
    "test_hidden_states_output": TWO_BACKBONES,
    "test_retain_grad_hidden_states_attentions": TWO_BACKBONES,
    **{
        f"test_get_{modality}_features_{what}": POOLED
        for modality in ("audio", "text")
        for what in ("attentions", "hidden_states", "output_0", "output_1", "output_2")
    },
}
"""Tests that this file skips, each with the reason."""

EXPLAINED_SKIPS = {
    **{re.escape(reason): reason for reason in INAPPLICABLE.values()},
    r"requires (accelerator|multiple accelerators|MPS)": "There is no such device on a machine that has only a CPU.",
    r"requires (Flash Attention|deepspeed|the kernels library)": "An optional package that this project doesn't use.",
    r"test is slow": "Needs an accelerator too; transformers runs it on request only.",
    r"language modeling head": "This model classifies; it has no language modelling head.",
    r"grouped_mm|sparse experts|output_router_logits": "No backbone is a mixture of experts.",
    r"base_model_class|sliding window|position embeddings$": "About rotary positions and windows of a single decoder.",
    r"inputs_embeds": "Two modalities come in, as samples and as tokens.",
    r"_keep_in_fp32_modules": "What stays in float32 does so in forward, not by its weights.",
    r"TP plan": "There is no plan for tensor parallelism.",
    r"does not support SDPA": "About models without parts; the two backbones of this one are tested as a composite.",
    r"No conversion found": "Only some fusions have names that are changed on loading.",
    r"not in MODEL_MAPPING": "The class is found by auto_map, not by the library's own table.",
    r"does not propagate hidden states": TWO_BACKBONES,
    r"Not a prioritized model": "The library's own list of models.",
}
"""Every skip of the common tests, by a pattern of what it says, with why it is right; one that isn't here fails."""


class RsaCfnModelTester:
    """Sizes and inputs of a small model, under the names that the common tests read."""

    batch_size = 3
    seq_length = 7
    num_samples = 800
    hidden_size = 16
    num_hidden_layers = 2
    num_attention_heads = 2
    is_training = True

    def __init__(self, parent, make_config):
        self.parent = parent
        self.make_config = make_config

    def get_config(self):
        return self.make_config()

    def prepare_config_and_inputs_for_common(self):
        generator = torch.Generator().manual_seed(0)
        inputs = {
            "input_values": torch.randn(self.batch_size, self.num_samples, generator=generator),
            "audio_attention_mask": torch.ones(self.batch_size, self.num_samples, dtype=torch.long),
            "input_ids": ids_tensor([self.batch_size, self.seq_length], 64),
            "attention_mask": random_attention_mask([self.batch_size, self.seq_length]),
        }
        return self.get_config(), inputs


class RsaCfnModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (RsaCfnForSequenceClassification,)
    _is_composite = True
    # An attention mask is the text's.
    additional_model_inputs = ["input_ids"]

    @pytest.fixture(autouse=True)
    def set_up_tester(self, make_config):
        self.model_tester = RsaCfnModelTester(self, make_config)
        reason = INAPPLICABLE.get(self._testMethodName)
        if reason:
            self.skipTest(reason)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        # The base class knows the classes that need labels by the names in the library.
        return {**inputs, "labels": torch.arange(RsaCfnModelTester.batch_size)} if return_labels else inputs

    def test_config(self):
        ConfigTester(self, config_class=RsaCfnConfig, has_text_modality=False, common_properties=[]).run_common_tests()
