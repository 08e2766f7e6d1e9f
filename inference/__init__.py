"""Programs that train and compare the models: `python -m inference.compare`, `python -m inference.train`."""
