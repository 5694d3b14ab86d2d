"""The log of a training: one entry per step, and a picture of it."""

import numpy as np
import pytest
from matplotlib import image

from training.curves import draw_training_curve, training_steps


LOG = [
    {"loss": 2.0, "grad_norm": 1.0, "learning_rate": 0.1, "epoch": 0.5, "step": 4},
    {"loss": 1.5, "grad_norm": 0.5, "learning_rate": 0.05, "epoch": 1.0, "step": 8},
    {"eval_loss": 1.25, "eval_macro_f1": 0.5, "eval_runtime": 3.0, "epoch": 1.0, "step": 8},
    {"train_runtime": 60.0, "train_loss": 1.75, "epoch": 1.0, "step": 8},
]


def test_what_was_logged_at_a_step_is_one_entry():
    assert training_steps(LOG) == [
        {"step": 4, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.0},
        {
            "step": 8,
            "epoch": 1.0,
            "loss": 1.5,
            "learning_rate": 0.05,
            "grad_norm": 0.5,
            "eval_loss": 1.25,
            "eval_macro_f1": 0.5,
        },
    ]


@pytest.mark.parametrize(
    ("log", "panels"), [(LOG, 2), (LOG[:1], 1), (LOG[2:3], 2)], ids=["both", "one step", "only scores"]
)
def test_a_panel_for_losses_and_one_for_scores(log, panels, tmp_path):
    draw_training_curve(tmp_path / "curve.png", training_steps(log), best_step=4)
    picture = image.imread(tmp_path / "curve.png")
    height, width = picture.shape[:2]
    assert round(width / height / (4.5 / 3.4)) == panels
    for panel in np.array_split(picture, panels, axis=1):
        assert len(np.unique(panel.reshape(-1, panel.shape[2]), axis=0)) > 20
