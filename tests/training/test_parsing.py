"""The arguments: defaults that fit the run, JSON files, and one line for what is wrong."""

import copy
import json
import os
from pathlib import Path

import pytest

from foundation.errors import InputError
from training.arguments import training_defaults
from training.parsing import as_command_line, parse_arguments
from training.precision import Device
from training.recipe import make_recipe


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_without_arguments_it_is_the_demo():
    model_args, data_args, training_args = parse_arguments([])
    assert (model_args.fusion, model_args.audio_model, model_args.text_model) == ("rsa_cfn", "tiny", "tiny")
    assert data_args.dataset_name is None
    assert training_args.output_dir == "models/rsa_cfn"
    assert training_args.do_train and training_args.do_eval
    assert training_args.learning_rate == 1e-3


@pytest.mark.parametrize(
    "fusion, learning_rate, batch_size", [("rsa_cfn", 1e-5, 4), ("early_fusion", 1e-5, 6), ("audio", 1e-4, 16)]
)
def test_pretrained_backbones_train_as_in_the_paper(fusion, learning_rate, batch_size):
    Path("data/kemdy20").mkdir(parents=True)
    model_args, data_args, training_args = parse_arguments(["--fusion", fusion])
    assert data_args.dataset_name == "data/kemdy20"
    assert model_args.audio_model == "facebook/wav2vec2-large-960h-lv60-self"
    assert model_args.text_model == "klue/roberta-base"
    assert training_args.output_dir == f"models/{fusion}"
    assert training_args.learning_rate == learning_rate
    assert training_args.per_device_train_batch_size == batch_size
    assert (training_args.num_train_epochs, training_args.lr_scheduler_type) == (10, "constant")
    assert (training_args.weight_decay, training_args.max_grad_norm, training_args.seed) == (0, 0, 2023)
    assert (training_args.train_sampling_strategy, training_args.length_column_name) == ("random", "duration")


@pytest.mark.parametrize("accelerator, num_workers", [(True, min(4, os.cpu_count())), (False, 0)])
def test_workers_decode_beside_an_accelerator(accelerator, num_workers, monkeypatch):
    monkeypatch.setattr("training.arguments.has_accelerator", lambda: accelerator)
    assert training_defaults("rsa_cfn", is_tiny=False, given={})["dataloader_num_workers"] == num_workers


def test_what_is_given_wins_over_the_defaults():
    arguments = ["--learning_rate", "0.5", "--do_eval", "false", "--output_dir", "elsewhere"]
    _, _, training_args = parse_arguments(arguments)
    assert (training_args.learning_rate, training_args.do_eval, training_args.output_dir) == (0.5, False, "elsewhere")


def test_a_json_file_says_the_same_as_the_command_line():
    given = {"fusion": "text", "split": "paper", "learning_rate": 0.002, "num_train_epochs": 3, "do_eval": False}
    given |= {"eval_modalities": ["both", "text"], "lr_scheduler_kwargs": {"a": 1}, "dataset_name": None}
    Path("run.json").write_text(json.dumps(given))
    from_file = parse_arguments(["run.json"])
    from_line = parse_arguments(
        "--fusion text --split paper --learning_rate 0.002 --num_train_epochs 3 --do_eval false "
        '--eval_modalities both text --lr_scheduler_kwargs {"a":1}'.split()
    )
    for ours, theirs in zip(from_file[:2], from_line[:2]):
        assert ours == theirs
    assert from_file[2].to_dict() == from_line[2].to_dict()


@pytest.mark.parametrize("arguments", ["", "--fusion text", "--audio_model me/large --text_model me/large"])
def test_batches_are_drawn_at_random(arguments):
    """Clips of like length are of like speaker and class, and batches of them teach less."""
    assert parse_arguments(arguments.split())[2].train_sampling_strategy == "random"


@pytest.mark.parametrize(
    "arguments, frozen",
    [
        ("", (False, False)),
        ("--freeze_audio", (True, False)),
        ("--freeze_text_encoder", (False, True)),
        ("--cache_features", (True, True)),
    ],
)
def test_what_is_frozen(arguments, frozen):
    model_args, *_ = parse_arguments(arguments.split())
    assert (model_args.freeze_audio_encoder, model_args.freeze_text_encoder) == frozen


@pytest.mark.parametrize(
    "arguments, label_target, ties",
    [
        ("", "majority", "drop"),
        ("--label_transform", "majority", "transform"),
        ("--label_transform --ties transform", "majority", "transform"),
        ("--label_target soft", "soft", "soft"),
        ("--label_target soft --ties drop", "soft", "drop"),
        ("--label_target soft --label_transform", "soft", "transform"),
        ("--ties soft", "majority", "soft"),
    ],
)
def test_what_becomes_of_ties_when_it_is_not_said(arguments, label_target, ties):
    _, data_args, _ = parse_arguments(arguments.split())
    assert (data_args.label_target, data_args.ties) == (label_target, ties)


@pytest.mark.parametrize(
    ("arguments", "trains"),
    [
        ("", True),
        ("--do_eval", False),
        ("--do_predict", False),
        ("--do_train --do_eval", True),
        ("--do_eval false", True),
        ("--do_train false", False),
    ],
)
def test_what_is_scored_by_itself_is_not_trained(arguments, trains, make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "saved")
    given = ["--model_name_or_path", str(tmp_path / "saved"), "--output_dir", str(tmp_path / "out")]
    _, _, training_args = parse_arguments([*given, *arguments.split()])
    assert training_args.do_train == trains


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--split all --do_eval --class_weights balanced", "--split all has none; leave it out"),
        ("--split all", "--split all leaves nothing to train on; give --do_eval"),
        ("--hub_token hf_secret", "--hub_token would be written into training_args.bin; run `hf auth login`"),
        ("--fusion sum", "--fusion sum is unknown; give one of audio, text, early_fusion"),
        ("--pooling_mode median", "--pooling_mode median is unknown; give one of mean, sum, max"),
        ("--split random", "--split random is unknown; give one of session, speaker, paper, predefined"),
        ("--split paper --fold 1", "--fold 1 has no use with --split paper, which has no folds"),
        ("--split session --num_folds 3 --fold 4", "--fold 4 is more than --num_folds 3; give 1 to 3"),
        ("--split speaker --num_folds 1", "--num_folds 1 is too small; give 2 or more"),
        ("--fusoin text", "unknown arguments: --fusoin text; did you mean --fusion? (see --help)"),
        ("--learning_rate fast", "argument --learning_rate/--learning-rate: invalid float value: 'fast'"),
        ("--max_audio_seconds 0", "--max_audio_seconds 0.0 is out of range; give more than 0"),
        ("--audio_crop middle", "--audio_crop middle is unknown; give one of random, head"),
        (
            "--dataloader_persistent_workers true --dataloader_num_workers 0",
            "has no use without --dataloader_num_workers; give it",
        ),
        ("--max_text_tokens 2", "--max_text_tokens 2 is out of range; give 3 or more"),
        ("--do_train false", "nothing to evaluate; give a saved model"),
        ("--do_eval", "nothing to evaluate; give a saved model"),
        ("--label_smoothing_factor 0.1", "would replace the model's own loss"),
        ("--model_name_or_path x --audio_model y", "brings its own backbones"),
        ("--model_name_or_path no/such", "--model_name_or_path no/such is no folder here and can't be reached"),
        ("--eval_strategy sometimes", "sometimes"),
        ("--predict_file full", "--predict_file needs a model to predict with; give a saved one with --model_name"),
        ("--asr_model x", "--asr_model has no use without --predict_file; give it, or leave it out"),
        ("--int8", "--int8 has no use in training; give --do_train false and a saved model, or leave it out"),
        ("--eval_modalities both video", "--eval_modalities video is unknown; give one of both, audio, text"),
        ("--class_weights heavy", "--class_weights heavy is unknown; give one of balanced, effective"),
        ("--label_target mean", "--label_target mean is unknown; give one of majority, soft"),
        ("--ties keep", "--ties keep is unknown; give one of drop, transform, soft"),
        ("--ties soft --label_transform", "--label_transform means --ties transform, not --ties soft"),
        ("--modality_dropout 1.5", "--modality_dropout=1.5"),
        ("--label_smoothing 1", "--label_smoothing=1.0 is out of range"),
        ("--cross_fusion_rank 0", "--cross_fusion_rank=0 is out of range"),
        ("--attributes pace pace", "--attributes=['pace', 'pace'] don't fit attribute_ranges"),
        ("--attributes pace --attribute_weight 0", "--attribute_weight=0.0 is out of range; give more than 0"),
        ("--attributes pace --attribute_loss mae", "--attribute_loss mae is unknown; give one of ccc, mse"),
        ("--fusion text --audio_learning_rate 0.1", "--audio_learning_rate has no use"),
        ("--text_learning_rate -1", "--text_learning_rate -1.0 is out of range; give 0 or more"),
        ("--freeze_text --text_learning_rate 0.1", "no use: --freeze_text_encoder keeps that backbone from training"),
        ("--cache_features --audio_learning_rate 0.1", "no use: --cache_features keeps that backbone from training"),
        (
            "--cache_features --freeze_text false",
            "--cache_features freezes both backbones; leave out --freeze_text_enc",
        ),
        (
            "--cache_features --use_weighted_layer_sum --fusion mlp_mixer",
            "can't go with use_weighted_layer_sum for fusion=mlp_mixer",
        ),
        ("--cache_features --fusion text --eval_modalities audio", "--fusion text has none of it"),
        (f"--output_dir {Path(__file__).parents[2]}", "holds the code of this repository"),
        (f"--output_dir {Path(__file__).parents[3]}", "holds the code of this repository"),
        ("--report_to tensorbord", "--report_to tensorbord is unknown; give one of "),
        ("--output_dir full", "already holds files, and no finished run; give a new folder, remove this one, or go on"),
        ("--output_dir finished", "already holds a finished run; give a new folder, remove this one, or score it"),
        ("--fp16 --bf16", "--fp16 and --bf16 exclude each other; give one of them"),
        ("--ema_decay 1", "--ema_decay 1.0 is out of range; give 0 or more, below 1"),
        ("--cache_features --augment mixup noise", "has no use with --cache_features, but mixup and raters"),
        ("--early_stopping_patience 0", "--early_stopping_patience 0 is out of range; give 1 or more"),
        ("--early_stopping_patience 2", "has no use without scores; give --eval_strategy epoch, or steps"),
        (
            "--early_stopping_patience 2 --eval_strategy epoch --save_strategy epoch",
            "has no use without the best; give --load_best_model_at_end",
        ),
        (
            "--compare_epochs_on test",
            "--compare_epochs_on test compares no epochs by itself; give --eval_strategy epoch",
        ),
        ("--compare_epochs_on train", "--compare_epochs_on train is unknown; give one of validation, test"),
        ("nowhere.json", "nowhere.json can't be read as JSON"),
        ("unknown.json", "unknown.json has unknown arguments: fusoin; did you mean --fusion? (see --help)"),
        ("unknown.json --seed 7", "unknown.json has unknown arguments: fusoin"),
        ("seed.json --seed fast", "invalid int value: 'fast'"),
        ("illegal.json", "--fusion sum is unknown"),
        ("list.json", "holds no JSON object"),
        ("type.json", "invalid int value: 'many'"),
        ("--per_device_train_batch_size 0", "--per_device_train_batch_size 0 is out of range; give 1 or more"),
        ("--seed 4294967296", "--seed 4294967296 is out of range; give 0 or more, at most 4294967295"),
        ("--learning_rate nan", "--learning_rate nan is out of range; give 0 or more"),
        ("--modality_dropout nan", "--modality_dropout nan is out of range; give a finite number"),
        ("--adam_beta2 1", "--adam_beta2 1.0 is out of range; give 0 or more, below 1"),
        ("--max_steps 0", "--max_steps 0 is out of range; give 1 or more"),
        ("--metric_for_best_model f2", "--metric_for_best_model f2 is unknown; give one of macro_f1, unweighted"),
        ("--output_dir file/x", "file is a file); give a new folder"),
        ("--load_best_model_at_end", "--load_best_model_at_end has no use without scores; give --eval_strategy epoch"),
        (
            "--logging_steps 5",
            "--logging_steps has no use with --logging_strategy epoch; give --logging_strategy steps",
        ),
        ("--hub_model_id me/x", "--hub_model_id has no use without --push_to_hub; give it, or leave it out"),
        ("--push_to_hub --hub_strategy every_save", "--hub_strategy has no use as every_save: a model is pushed with"),
        ("--dataset_config_name x", "--dataset_config_name has no use with a folder from prepare_dataset.py"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message):
    for folder in ("full", "finished"):
        Path(folder).mkdir()
        Path(folder, "config.json").touch()
    Path("finished/trainer_state.json").write_text("{}")
    Path("file").touch()
    Path("unknown.json").write_text('{"fusoin": "text"}')
    Path("seed.json").write_text('{"seed": 7}')
    Path("illegal.json").write_text('{"fusion": "sum"}')
    Path("list.json").write_text("[]")
    Path("type.json").write_text('{"max_text_tokens": "many"}')
    with pytest.raises(InputError) as error:
        parse_arguments(arguments.split())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_at_their_bounds_and_scores_are_legal():
    numbers = "--seed 4294967295 --max_steps -1 --learning_rate 0 --warmup_steps 0.1 --weight_decay 0"
    for score in ("eval_macro_f1", "loss", "f1_happy"):
        parse_arguments([*numbers.split(), "--metric_for_best_model", score])
    # The steps of evaluation, where it has none of its own.
    parse_arguments("--eval_strategy steps --logging_steps 5".split())


def test_what_a_plan_gives_to_all_fusions_is_said_where_it_has_no_use(caplog):
    parse_arguments("--fusion rsa --cross_fusion_rank 4".split())
    assert "--cross_fusion_rank has no use with --fusion rsa; give one of rsa_cfn" in caplog.text


def test_help_is_in_groups_and_tells_each_default_once(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    order = ["usage:", "model: --fusion", "data: --dataset_name", "training: --output_dir", "all other Training"]
    places = [told.index(title) for title in order]
    assert places == sorted(places)
    assert told.index("--learning_rate LEARNING_RATE") < places[-1] < told.index("--adam_beta1")
    for entry in told.split(" --")[1:]:
        assert entry.count("(default") < 2, entry


def test_without_its_package_a_run_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("training.checks.get_available_reporting_integrations", lambda: ["wandb"])
    parse_arguments(["--report_to", "wandb"])
    with pytest.raises(InputError, match="pip install tensorboard$"):
        parse_arguments(["--report_to", "tensorboard"])
    parse_arguments([])


def test_a_model_of_a_later_version_is_refused(make_model):
    model = make_model(fusion="stack")
    model.config.use_cache = False  # as the Trainer does
    model.save_pretrained("saved")
    parse_arguments(["--model_name_or_path", "saved"])
    saved = json.loads(Path("saved/config.json").read_text())
    Path("saved/config.json").write_text(json.dumps({**saved, "gate_size": 4, "transformers_version": "9.1.0"}))
    with pytest.raises(InputError, match=r"doesn't know: gate_size; update this .* \(saved with 9.1.0, here is 5"):
        parse_arguments(["--model_name_or_path", "saved"])


@pytest.fixture
def save(make_model, processor):
    """A function that saves a model and its processor, and parses a command line that starts from it."""

    def save(arguments="", limits=(), **fields):
        make_model(**fields).save_pretrained("saved")
        limited = copy.copy(processor)
        vars(limited).update(limits)
        limited.save_pretrained("saved")
        return parse_arguments(["--model_name_or_path", "saved", *arguments.split()])

    return save


IN_FORCE = {
    "fusion": "stack",
    "pooling_mode": "max",
    "attributes": ["valence"],
    "attribute_loss": "mse",
    "modality_dropout": 0.2,
    "label_smoothing": 0.1,
    "freeze_feature_encoder": True,
    "freeze_audio_encoder": True,
    "freeze_text_encoder": True,
    "freeze_text_layers": 1,
}


def test_what_is_not_given_is_as_the_model_was_saved(save):
    limits = {"max_audio_seconds": 1.5, "max_text_tokens": 12, "audio_crop": "head"}
    model_args, data_args, training_args = save(limits=limits, **IN_FORCE)
    assert {name: getattr(model_args, name) for name in IN_FORCE} == IN_FORCE
    assert {name: getattr(data_args, name) for name in limits} == limits
    assert training_args.output_dir == "models/stack"
    # Nobody said anything of the backbones, which are the saved ones.
    assert (model_args.audio_model, model_args.text_model) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ("--freeze_audio_encoder false", "freeze_audio_encoder", False),
        ("--freeze_text false", "freeze_text_encoder", False),
        ("--freeze_audio_encoder false --freeze_feature_encoder false", "freeze_feature_encoder", False),
        ("--freeze_text false --freeze_text_layers 0", "freeze_text_layers", 0),
        ("--freeze_text false --text_learning_rate 0.1", "text_learning_rate", 0.1),
        ("--label_smoothing 0", "label_smoothing", 0.0),
        ("--modality_dropout 0", "modality_dropout", 0.0),
        ("--pooling_mode max", "pooling_mode", "max"),
        ("--attributes valence", "attributes", ["valence"]),
        ("--attribute_loss ccc", "attribute_loss", "ccc"),
        ("--cache_features", "freeze_audio_encoder", True),
    ],
)
def test_what_is_given_wins_over_the_saved_model(arguments, name, value, save):
    """Also where it is the default of a new model."""
    model_args, *_ = save(arguments, **IN_FORCE)
    assert getattr(model_args, name) == value
    recipe = as_command_line(make_recipe(*save(arguments, **IN_FORCE)))
    assert getattr(parse_arguments(recipe)[0], name) == value


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({}, "--fusion text", "--model_name_or_path brings its own fusion, rsa_cfn, not text; leave out --fusion"),
        ({}, "--pooling_mode max", "brings its own pooling_mode, mean, not max; leave out --pooling_mode"),
        ({}, "--attributes valence", "brings its own attributes, None, not ['valence']; leave out --attributes"),
        ({"cross_fusion_rank": 2}, "--cross_fusion_rank 3", "brings its own cross_fusion_rank, 2, not 3"),
        ({"use_weighted_layer_sum": True}, "--use_weighted_layer_sum false", "brings its own use_weighted_layer_sum"),
        (
            {"freeze_audio_encoder": True},
            "--audio_learning_rate 0.1",
            "--audio_learning_rate has no use: the saved model keeps its audio backbone from training; give "
            "--freeze_audio_encoder false too, or leave it out",
        ),
        ({"freeze_text_encoder": True}, "--freeze_text_layers 1", "--freeze_text_layers has no use: the saved model"),
        (
            {"freeze_audio_encoder": True, "freeze_feature_encoder": True},
            "--freeze_feature_encoder false",
            "--freeze_feature_encoder has no use: the saved model keeps its audio backbone from training",
        ),
        (
            {"freeze_audio_layers": 1, "freeze_feature_encoder": True},
            "--freeze_feature_encoder false",
            "keeps 1 layers of its audio backbone and all below them from training; give --freeze_audio_layers 0 too",
        ),
        ({}, "--freeze_text_layers 3", "--freeze_text_layers=3 is out of range; text_config has 2 layers"),
        ({}, "--max_text_tokens 65", "--max_text_tokens 65 is more than the saved model takes; give at most 64"),
        ({"fusion": "mlp_mixer"}, "--max_text_tokens 17", "more than the saved model takes; give at most 16"),
        ({"fusion": "mlp_mixer"}, "--max_audio_seconds 7", "is more than the 100 frames that the saved mlp_mixer"),
        ({"fusion": "text"}, "--audio_learning_rate 0.1", "--fusion text has no such backbone"),
    ],
)
def test_what_a_saved_model_cannot_change_is_refused(fields, arguments, message, save):
    with pytest.raises(InputError) as error:
        save(arguments, **fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_prediction_for_files_does_nothing_else(make_model):
    make_model(fusion="stack").save_pretrained("saved")
    Path("speech.wav").touch()
    given = ["--do_predict", "--model_name_or_path", "saved", "--predict_file"]
    *_, training_args = parse_arguments([*given, "speech.wav"])
    assert training_args.output_dir == "predictions"
    assert (training_args.do_train, training_args.do_eval, training_args.do_predict) == (False, False, True)
    for more in (["--do_train"], ["--do_eval"], ["--do_predict", "false"]):
        with pytest.raises(InputError, match="predicted for and nothing else; leave out --do_train and --do_eval"):
            parse_arguments([*given, "speech.wav", *more])
    with pytest.raises(InputError, match="--predict_file nowhere.csv isn't there; give a csv, a folder"):
        parse_arguments([*given, "nowhere.csv"])


def test_a_run_can_be_resumed_in_its_folder():
    Path("full").mkdir()
    Path("full/config.json").touch()
    *_, training_args = parse_arguments("--output_dir full --resume_from_checkpoint true".split())
    assert training_args.output_dir == "full"


def test_resuming_can_be_said_not_to_be_wanted():
    *_, training_args = parse_arguments("--resume_from_checkpoint false".split())
    assert training_args.resume_from_checkpoint is None


def test_a_precision_that_the_device_lacks_is_replaced(monkeypatch, caplog):
    monkeypatch.setattr("training.precision.find_device", lambda use_cpu: Device("cuda", has_bf16=False))
    *_, training_args = parse_arguments("--bf16 --use_cpu false".split())
    assert (training_args.fp16, training_args.bf16) == (True, False)
    assert caplog.messages == [
        "--bf16: this cuda device has no bfloat16, so the run computes in float16, as with --fp16."
    ]
    monkeypatch.setattr("training.precision.find_device", lambda use_cpu: Device("cpu") if use_cpu else None)
    *_, training_args = parse_arguments("--bf16 --use_cpu".split())
    assert (training_args.fp16, training_args.bf16) == (False, True)
    assert len(caplog.messages) == 1
