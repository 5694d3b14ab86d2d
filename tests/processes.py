"""Python in processes of its own, without the seconds that imports take: a server that has imported the libraries forks
each of them. What runs imports the project's own files anew, so it is all that a new interpreter would be."""

import atexit
import contextlib
import gc
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import traceback
import types
from dataclasses import dataclass
from pathlib import Path


REPOSITORY = Path(__file__).parents[1]


def serve():
    """Start what each line of stdin describes, until stdin is closed."""
    import datasets  # noqa: F401
    import evaluate  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import soundfile  # noqa: F401
    from transformers import (  # noqa: F401
        AutoModel,
        AutoProcessor,
        PreTrainedTokenizerFast,
        RobertaModel,
        Trainer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
    )

    gc.freeze()  # what is here already is shared with all processes, and stays so where their collectors leave it alone
    for line in sys.stdin:
        if not os.fork():
            _watch(json.loads(line))
        _reap(os.WNOHANG)
    _reap(0)


def _reap(options):
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def _watch(asked):
    """Start the processes, one for each environment, tell their numbers, wait for them, and tell their exit codes."""
    children = []
    for environment in asked["environments"]:
        child = os.fork()
        if not child:
            _end(_become, asked, environment)
        children.append(child)
    with open(asked["pipe"], "w") as pipe:
        print(*children, file=pipe, flush=True)
        print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), file=pipe)
    os._exit(0)


def _become(asked, environment):
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    for stream in ("stdout", "stderr"):
        os.dup2(os.open(asked[stream], os.O_WRONLY | os.O_CREAT | os.O_APPEND), getattr(sys, stream).fileno())
    os.environ.update(environment)
    os.chdir(asked["cwd"])
    first, *rest = asked["arguments"]
    sys.path[0] = str(Path(first).parent) if first.endswith(".py") else ""
    sys.path[1:1] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def _end(function, *arguments):
    """End the process as Python does after this call, but for taking all modules apart, which takes two seconds."""
    code = 0
    try:
        function(*arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass
class Run:
    """Processes that have been started together, most often one."""

    arguments: list[str]
    folder: Path

    def __post_init__(self):
        self._pipe = (self.folder / "pipe").open()
        self.pids = [int(pid) for pid in self._pipe.readline().split()]
        self._codes = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self._codes = [int(code) for code in self._pipe.readline().split()]
        self._pipe.close()

    @property
    def pid(self) -> int:
        return self.pids[0]

    @property
    def is_alive(self) -> bool:
        return self._reader.is_alive()

    def wait(self) -> int:
        """The exit code, negative for a signal; of several processes that of the first that failed."""
        self._reader.join()
        return next((code for code in self._codes if code), 0)

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8")


class Processes:
    """
    Starts Python as `python -c CODE`, `python -m MODULE` or `python SCRIPT.py` does, with arguments after it.

    Args:
        folder (`Path`): For what the processes write to stdout and stderr, and for the home of the Hugging Face
            libraries, which is empty whenever processes start.
        environment (`dict`): Of all processes; none named HF_ or PYTHON is inherited from this one.
    """

    def __init__(self, folder: Path, **environment: str):
        self.folder, self.number = folder, 0
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
        inherited |= {"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._server = subprocess.Popen(
            [sys.executable, __file__], env=inherited | environment, stdin=subprocess.PIPE, text=True
        )

    def start(self, *arguments, cwd=REPOSITORY, num_processes: int = 1, **environment: str) -> Run:
        """Several processes find each other as those of torch's launcher do."""
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        os.mkfifo(folder / "pipe")
        for stream in ("stdout", "stderr"):
            (folder / stream).touch()
        environments = [environment]
        if num_processes > 1:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes)}
            ranks = map(str, range(num_processes))
            environments = [environment | shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in ranks]
        asked = {"arguments": [str(argument) for argument in arguments], "environments": environments}
        asked |= {name: str(folder / name) for name in ("pipe", "stdout", "stderr")} | {"cwd": str(cwd)}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return Run(asked["arguments"], folder)

    def run(self, *arguments, **options) -> subprocess.CompletedProcess:
        run = self.start(*arguments, **options)
        return subprocess.CompletedProcess(arguments, run.wait(), run.stdout, run.stderr)

    def close(self):
        self._server.stdin.close()
        self._server.wait()


if __name__ == "__main__":
    serve()
