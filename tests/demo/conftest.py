"""A tiny saved model, and examples of a small demo corpus."""

import pytest

from demo.examples import write_examples


@pytest.fixture(scope="session")
def checkpoint_dir(make_model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "rsa_cfn"
    make_model(fusion="rsa_cfn").save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlanguage: [ko]\ntags: [synthetic]\n---\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def examples(prepared_dir, tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("examples"), prepared_dir)
