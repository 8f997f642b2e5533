"""Training, evaluation and comparison of allocators; run from a checkout as `python -m training.train`."""
