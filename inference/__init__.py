"""Programs that train and compare the models: `python -m inference.compare`, `.train` and `.latent_routing`."""
