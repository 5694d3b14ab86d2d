"""What a result depends on beside its arguments: the day, this code, and the packages."""

import platform
import re
import subprocess
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version

from foundation.files import REPOSITORY


PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "huggingface_hub", "scikit-learn")


def made_with() -> dict[str, str]:
    """The date, the commit of this code or the version that pip installed, and the versions of Python and packages."""
    made = {"date": date.today().isoformat(), "Python": platform.python_version()}
    made |= {package: version(package) for package in PACKAGES}
    if commit := _git("describe", "--always", "--dirty", "--abbrev=12"):
        return made | {"commit": commit}
    with suppress(PackageNotFoundError):
        made["rsa-cfn"] = version("rsa-cfn")
    return made


def repository_address() -> str | None:
    """The page that this code was cloned from, without a user's name or password; None where it wasn't."""
    address = r"(?:\w+://(?:[^/]*@)?|[\w-]+@)([\w-]+(?:\.[\w-]+)+)(?::\d+/|[:/])([\w./-]+?)(?:\.git)?/?"
    found = re.fullmatch(address, _git("config", "--get", "remote.origin.url"))
    return f"https://{found[1]}/{found[2]}" if found else None


def _git(*arguments: str) -> str:
    """What git says of this repository; nothing where there is no git, or where another's folder holds this code."""
    if not (REPOSITORY / ".git").exists():
        return ""
    with suppress(OSError):
        git = ["git", "-C", str(REPOSITORY), *arguments]
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return ""
