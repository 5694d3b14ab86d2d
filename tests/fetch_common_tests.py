"""Fetch transformers' own common model tests, which its wheel leaves out, from the source archive on PyPI.

    python tests/fetch_common_tests.py

They land in .cache/transformers-tests/<version>/, which git ignores, as the package `transformers_tests`.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers
from filelock import FileLock


CACHE = Path(__file__).resolve().parent.parent / ".cache" / "transformers-tests"
# What the tests import from folders that the archive lacks too, and our tests make no use of.
STUBS = {
    "exporters/test_export.py": "class ExportTesterMixin: pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin: pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}


def fetch_common_tests(timeout: float = 120.0) -> Path:
    """
    Download the archive of the installed version once (11 MB), and unpack its tests.

    Args:
        timeout (`float`, defaults to 120.0): Seconds after which the download is given up.

    Returns:
        The folder to put on `sys.path`, for `from transformers_tests.test_modeling_common import ...`.

    Raises:
        OSError: The archive can't be downloaded.
    """
    folder = CACHE / transformers.__version__
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    # Several processes that run tests come here at once.
    with FileLock(CACHE / "lock"), tempfile.TemporaryDirectory(dir=CACHE) as work:
        if folder.is_dir():
            return folder
        command = f"-m pip download --no-deps --no-binary transformers --no-build-isolation -d {work} --retries 1"
        command = [sys.executable, *command.split(), f"transformers=={transformers.__version__}"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout)
        except subprocess.SubprocessError as error:
            reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
            raise OSError(f"transformers=={transformers.__version__} has no source archive here: {reason}") from error
        package = Path(work) / "ready" / "transformers_tests"
        package.mkdir(parents=True)
        (archive,) = Path(work).glob("transformers-*.tar.gz")
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = Path(member.name).parts
                if len(parts) == 3 and parts[1] == "tests" and member.isfile():
                    (package / parts[2]).write_bytes(tar.extractfile(member).read())
        for name, text in STUBS.items():
            for init in (package / name).parent, package:
                init.mkdir(exist_ok=True)
                (init / "__init__.py").touch()
            (package / name).write_text(text)
        # Last and in one step, so that a folder that is there is whole.
        os.replace(package.parent, folder)
    return folder


if __name__ == "__main__":
    print(fetch_common_tests())
