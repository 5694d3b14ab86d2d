"""The packages whose versions a result depends on."""

from importlib.metadata import version


PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "huggingface_hub", "scikit-learn")


def package_versions() -> dict[str, str]:
    return {package: version(package) for package in PACKAGES}
