"""A Trainer whose revisions on the Hub are whole models with their code, and hold nothing of the data.
Where a push goes is checked before training, and one that fails leaves the model where it is on the disk."""

import shutil
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from transformers import Trainer, TrainingArguments

from foundation.errors import InputError, PushError
from foundation.hub import check_namespace, check_visibility, errors_in_one_line, split_name, writable_namespaces
from training.checkpoints import LAST, is_finished


CARD_FILE = "README.md"
CURVE_FILE = "training_curve.png"
HANDLER = Path(__file__).with_name("handler.py")
# All that a model is made of, tokenizers of every kind included. What else lies in the folder of a run stays there: the
# names of rows, predictions, states of the optimizer, and the pickled arguments of the Trainer.
MODEL_FILES = ("config.json", "*.py", "*.safetensors", "*.safetensors.index.json", "processor_config.json")
MODEL_FILES += ("preprocessor_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*")
MODEL_FILES += ("merges.txt", "*.model")
RESULT_FILES = (CARD_FILE, CURVE_FILE, "confusion_matrix*.png", "all_results.json")


def check_destination(training_args: TrainingArguments) -> None:
    """Check, before anything is loaded, that the model may be pushed, and complete its name in `hub_model_id`."""
    with _saying_what_is_kept(training_args):
        names = writable_namespaces()
    name = training_args.hub_model_id or Path(training_args.output_dir).resolve().name
    name = name if "/" in name else f"{names[0]}/{name}"
    try:
        namespace, _ = split_name(name)
    except ValueError as error:
        legal = "--hub_model_id USER/NAME, in letters, digits, '-', '_' and '.'"
        raise InputError(f"{name} names no model: give {legal}") from error
    training_args.hub_model_id = name
    with _saying_what_is_kept(training_args):
        check_namespace(_asked(training_args), namespace, names)
        _check_visibility(training_args)


def _asked(training_args: TrainingArguments) -> str:
    name = training_args.hub_model_id
    return "--push_to_hub" if name is None else f"--hub_model_id {name}"


@contextmanager
def _saying_what_is_kept(training_args: TrainingArguments):
    """As `errors_in_one_line`, whose line also says how to push a model that is already trained."""
    try:
        with errors_in_one_line(_asked(training_args)):
            yield
    except PushError as error:
        if not is_finished(Path(training_args.output_dir)):
            raise
        raise PushError(
            f"{error} (the trained model in {training_args.output_dir} is complete and kept; push it by the same "
            f"command with --resume_from_checkpoint {LAST})"
        ) from error


def _check_visibility(training_args: TrainingArguments) -> None:
    if training_args.hub_private_repo is None:
        return
    try:
        repository = HfApi().model_info(training_args.hub_model_id)
    except RepositoryNotFoundError:
        return
    check_visibility(_asked(training_args), repository.private, public=not training_args.hub_private_repo)


def model_files(folder: Path, patterns: tuple[str, ...] = MODEL_FILES) -> list[str]:
    """Names of the files in a folder that belong on the Hub."""
    return sorted({file.name for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


class HubTrainer(Trainer):
    """[`Trainer`] that pushes the model and its results at the end, when it is asked to. transformers' own uploads all
    that is there, predictions among it."""

    def init_hf_repo(self, token=None, private=None):
        if not self.is_world_process_zero():
            return
        with errors_in_one_line(_asked(self.args)):
            super().init_hf_repo(token, private)
            # Somebody may have made it in the meantime, and then `private` is ignored.
            _check_visibility(self.args)
            if self.args.hub_revision is not None:
                HfApi().create_branch(self.hub_model_id, branch=self.args.hub_revision, exist_ok=True)

    def _commit(self, message: str, names: list[str]) -> CommitInfo:
        with _saying_what_is_kept(self.args):
            return HfApi().upload_folder(
                repo_id=self.hub_model_id,
                folder_path=self.args.output_dir,
                commit_message=message,
                allow_patterns=names,
                revision=self.args.hub_revision,
            )

    def push_to_hub(self, commit_message="End of training", blocking=True, token=None, revision=None, **kwargs):
        """Upload the model in the run's folder, and its results; a PushError leaves the folder as it is."""
        if self.is_world_process_zero():
            if self.args.hub_handler:
                shutil.copyfile(HANDLER, Path(self.args.output_dir) / HANDLER.name)
            return self._commit(commit_message, model_files(Path(self.args.output_dir), (*MODEL_FILES, *RESULT_FILES)))

    def push_card(self) -> str:
        """Upload the card alone, and give the address of the repository."""
        self._commit("Pin the card to the revision it describes", [CARD_FILE])
        return f"{constants.ENDPOINT}/{self.hub_model_id}"
