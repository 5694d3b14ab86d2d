"""What run_experiments.py puts together: a plan's cells, their runs, the statistics over them and the report."""
