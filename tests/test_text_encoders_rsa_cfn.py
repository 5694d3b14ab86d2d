"""Families of text encoders: what each makes of a row, trained, frozen, weighed over its layers, saved and loaded."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from modeling_rsa_cfn import RsaCfnForSequenceClassification
from tests.slow import mostly_slow


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
SIZES |= {"vocab_size": 64, "max_position_embeddings": 66, "pad_token_id": 1}
ENDS = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
NAMED = {"emb_dim": 16, "n_layers": 2, "n_heads": 2}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
ONE_GROUP = ("q", "k", "v", "post_attention", "intermediate", "output")
FAMILIES = {
    "albert": {"embedding_size": 8},
    "bert": {},
    "bert-generation": {},
    "big_bird": {"attention_type": "original_full"},
    "camembert": {},
    "data2vec-text": {},
    "deberta": RELATIVE,
    "deberta-v2": RELATIVE | {"norm_rel_ebd": "layer_norm", "share_att_key": True, "position_buckets": 8},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 20},
    "electra": {"embedding_size": 8},
    "ernie": {},
    "esm": {"mask_token_id": 4},
    "eurobert": {"num_key_value_heads": 2, "head_dim": 8},
    "flaubert": NAMED,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "ibert": {},
    "jina_embeddings_v3": {},
    "longformer": {"attention_window": [4, 4]},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "megatron-bert": {},
    "mobilebert": {"embedding_size": 8, "intra_bottleneck_size": 8, "true_hidden_size": 8},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 4, **ENDS},
    "mpnet": {},
    "nomic_bert": {},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "rembert": {"input_embedding_size": 8, "output_embedding_size": 8},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roformer": {"embedding_size": 16},
    "squeezebert": {"embedding_size": 16, **{f"{name}_groups": 1 for name in ONE_GROUP}},
    "xlm": NAMED,
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 20},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
# Their layers are one, or not in a list of that name.
WITHOUT_LAYERS = ("albert", "flaubert", "gpt2", "xlm")


def make_text_config(family, fields):
    own = "d_model" in fields  # it has no other names for its sizes
    return AutoConfig.for_model(family, **({"vocab_size": 64, "pad_token_id": 1} if own else SIZES), **fields)


@pytest.fixture(params=mostly_slow(FAMILIES, "deberta-v2", "distilbert", "modernbert"))
def family(request):
    return request.param


@pytest.fixture
def join(family, make_config, tmp_path):
    """A function that gives a model of a text encoder of the family, as users make it of folders."""
    AutoModel.from_config(make_config().audio_config).save_pretrained(tmp_path / "audio")
    torch.manual_seed(0)
    AutoModel.from_config(make_text_config(family, FAMILIES[family])).save_pretrained(tmp_path / "text")
    sizes = {"projection_size": 6, "cross_attention_size": 4, "cross_residual_size": 10}

    def join(fusion="text", **fields):
        folders = (str(tmp_path / "audio"), str(tmp_path / "text"))
        return RsaCfnForSequenceClassification.from_audio_text_pretrained(*folders, fusion=fusion, **sizes, **fields)

    return join


@pytest.fixture
def batch():
    """Twelve tokens, and five with padding."""
    input_ids = torch.randint(5, 64, (2, 12)).index_fill(1, torch.tensor([0]), 0)
    attention_mask = torch.tensor([[1] * 12, [1] * 5 + [0] * 7])
    return {"input_ids": input_ids.masked_fill(attention_mask == 0, 1), "attention_mask": attention_mask}


def test_a_text_alone_is_as_in_a_batch_and_comes_back(join, batch, tmp_path):
    model, alone = join(), {name: values[1:, :5] for name, values in batch.items()}
    for is_training in (True, False):
        # In training too: as in the paper, a text encoder has no dropout, whatever its fields are called.
        model.text_model.train(is_training)
        with torch.no_grad():
            together = model.get_text_features(**batch)
            assert torch.equal(model.get_text_features(**batch), together)
            torch.testing.assert_close(model.get_text_features(**alone), together[1:], atol=1e-5, rtol=1e-5)
    model.eval().save_pretrained(tmp_path / "saved")
    loaded = RsaCfnForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("fields", [{}, {"use_weighted_layer_sum": True}, {"freeze_text_layers": 1}])
def test_every_layer_trains_that_is_not_frozen(fields, join, family, batch):
    if family in WITHOUT_LAYERS and "freeze_text_layers" in fields:
        with pytest.raises(ValueError, match="has no layers of its own to freeze 1 of; give 0"):
            join(**fields)
        return
    model = join("rsa_cfn", **fields).train()
    model(**batch, input_values=torch.randn(2, 4000), labels=torch.tensor([0, 1])).loss.backward()
    weights = [weight for name, weight in model.text_model.named_parameters() if "att" in name]
    if fields.get("freeze_text_layers"):
        assert not all(weight.requires_grad for weight in weights)
    assert any(weight.grad is not None and weight.grad.any() for weight in weights)
