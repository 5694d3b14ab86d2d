"""
Answer over HTTP what a saved model makes of speech, its transcript or both.

```bash
pip install fastapi uvicorn python-multipart
python -m scripts.serve models/rsa_cfn
```
"""

import argparse
import signal
import socket
import sys
from importlib.util import find_spec

from accelerate import PartialState

from foundation.errors import InputError, OneLineParser, complain, run_script
from processing_rsa_cfn import RsaCfnPipeline
from training.model import load_saved
from training.precision import choose_precision, find_device
from training.stopping import SIGNALS


# Packages by what is imported of them.
EXTRA = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    codes = "exit codes: 0, the server was stopped; 2, something given can't be used"
    parser = OneLineParser(prog="serve", description="Answer HTTP requests by a saved model.", epilog=codes)
    parser.add_argument("model", help="folder or Hub id of a saved RSA-CFN model")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 is for other machines too (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 is any that is free (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=16, help="most windows the model reads at once (%(default)s)")
    parser.add_argument("--max_megabytes", type=float, default=25, help="of a request (%(default)s)")
    parser.add_argument("--max_seconds", type=float, default=120, help="of a recording (%(default)s)")
    parser.add_argument("--max_requests", type=int, default=32, help="under way; others get 503 (%(default)s)")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    precision.add_argument("--int8", action="store_true", help="multiply in 8 bits within the encoders, on a CPU")
    arguments = parser.parse_args(argv)
    for name in ("batch_size", "max_megabytes", "max_seconds", "max_requests"):
        if not getattr(arguments, name) > 0:
            parser.error(f"--{name} {getattr(arguments, name)} is out of range; give more than 0")
    return arguments


def serve(arguments: argparse.Namespace, bound: socket.socket) -> None:
    """Answer requests until a signal comes, and then those that are under way. Raises [`InputError`]."""
    # Here, since they are an extra.
    import uvicorn

    from scripts.serve_app import Batches, build_app

    device = PartialState().device
    if arguments.int8 and device.type != "cpu":
        raise InputError("--int8 multiplies on a CPU; give --bf16, or hide the accelerator")
    precision, note = choose_precision(False, arguments.bf16, find_device(use_cpu=False))
    model, processor = load_saved(arguments.model, "MODEL", int8=arguments.int8)
    told = bool(model.config.attributes)
    pipe = RsaCfnPipeline(model.to(device), processor, device=device, return_attributes=told)
    batches = Batches(pipe, arguments.batch_size, precision)
    app = build_app(batches, arguments.max_megabytes * 1e6, arguments.max_seconds, arguments.max_requests)
    for number in SIGNALS:  # which uvicorn raises once more when all is answered
        signal.signal(number, lambda *_: sys.exit(0))
    host, port, *_ = bound.getsockname()
    line = f"{arguments.model} answers at port {port} of {host}: POST /predict, as /docs says."
    print(*filter(None, (note, line)), sep="\n", flush=True)
    # A log of requests would have the texts of their queries.
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[bound])


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 after a signal, 2 where something given can't be used."""
    arguments = parse_arguments(argv)
    given = f"--host {arguments.host} --port {arguments.port}"
    try:
        missing = [name for module, name in EXTRA.items() if find_spec(module) is None]
        if missing:
            raise InputError(f"the server needs {', '.join(missing)}; pip install {' '.join(EXTRA.values())}")
        family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
        try:
            bound = socket.create_server((arguments.host, arguments.port), family=family)
        except (OSError, OverflowError) as error:
            raise InputError(f"{given} can't be used ({getattr(error, 'strerror', error)}); give others") from error
        with bound:
            serve(arguments, bound)
    except InputError as error:
        complain("serve", error)
        return 2
    return 0


if __name__ == "__main__":
    run_script("serve", main)
