"""What run_classification.py puts together: arguments, data and splits, backbones, Trainer, report and card."""
