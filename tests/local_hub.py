"""A Hub on this machine that lies beside the repository, and processes that talk to it.
They have to be processes of their own, as the address of the Hub is read when its library is imported."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path


REPOSITORY = Path(__file__).parents[1]
LOCAL_HUB = REPOSITORY.parent / "shared" / "tools" / "local_hub.py"
NO_LOCAL_HUB = {"no local Hub": "The server lies beside the repository, in a folder that not everybody has."}
TOKEN, READ_TOKEN = "hf_write", "hf_read"


def run_process(*arguments, cwd=REPOSITORY, **environment):
    """Runs Python with these arguments and gives the finished process, in whose words no token is to be found."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    finished = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=inherited | environment, capture_output=True, text=True
    )
    assert TOKEN not in finished.stdout + finished.stderr
    return finished


def run_python(code, **environment):
    """Runs code in a new process and returns what it printed."""
    finished = run_process("-c", code, **environment)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@contextmanager
def serve(folder):
    """A Hub in that folder, where `user` may write to `user` and `lab`; gives its port."""
    tokens = ["--token", TOKEN, "--read-token", READ_TOKEN, "--org", "lab"]
    server = subprocess.Popen(
        [sys.executable, LOCAL_HUB, "--port", "0", "--root", folder, "--port-file", folder / "port", *tokens],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        # It says where it listens once it does.
        server.stdout.readline()
        yield int((folder / "port").read_text())
    finally:
        server.terminate()
        server.wait()
