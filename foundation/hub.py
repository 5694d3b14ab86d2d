"""Who may write to a repository on the Hub, be it of a dataset or of a model; every refusal is one line.
Nothing in here writes anything, and no message holds a token."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from foundation.errors import PushError


def split_name(repo_id: str) -> tuple[str, str]:
    """Namespace and name of a repository; raises `ValueError` where it isn't `USER/NAME`."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id} is no name of a repository") from error
    namespace, name = repo_id.split("/")
    return namespace, name


def writable_namespaces() -> list[str]:
    """The user, then the organisations, that the token may write for."""
    if get_token() is None:
        raise PushError("--push_to_hub needs a token that may write: run `hf auth login`, or set HF_TOKEN")
    user = HfApi().whoami()
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PushError("--push_to_hub needs a token that may write, this one may only read: run `hf auth login` again")
    return [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]


def check_namespace(asked: str, namespace: str, names: list[str]) -> None:
    """Raises [`PushError`] unless the namespace is one of `names`; `asked` is the argument and its value."""
    if namespace not in names:
        raise PushError(f"{asked}: the token may not write to {namespace}: give {' or '.join(names)} before the /")


def check_visibility(asked: str, is_private: bool, public: bool) -> None:
    """Raises [`PushError`] where a repository is there with the other visibility, which making it anew would not
    change."""
    if is_private == public:
        found, wanted = ("private", "public") if is_private else ("public", "private")
        raise PushError(f"{asked} exists and is {found}, not {wanted}: give another name, or change it on the Hub")


@contextmanager
def errors_in_one_line(asked: str) -> Iterator[None]:
    """Makes whatever goes wrong with the Hub a [`PushError`] that begins with `asked`, the argument and its value."""
    try:
        yield
    except PushError:
        raise
    except Exception as error:  # whatever the network and the libraries below make of it
        raise PushError(f"{asked}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it"
    said = " ".join(str(error).split())
    if isinstance(error, ValueError):
        return f"the Hub doesn't take it ({said})"
    if not isinstance(error, HfHubHTTPError):
        return f"no connection to {constants.ENDPOINT}, or it broke ({type(error).__name__}: {said}): try again"
    status = error.response.status_code
    if status == 401:
        return "the Hub doesn't accept the token: run `hf auth login` again, or set HF_TOKEN to a valid one"
    if status == 403:
        return "the token may not write there: run `hf auth login` with one that may"
    return f"the Hub answered {status} ({error.server_message or 'without a message'}): try again"
