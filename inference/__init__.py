"""Programs that fit and compare the models: `python -m inference.compare`, `.train`, `.latent_routing` and
`.balanced_regression`, each a package on `inference.shared`; the first two also on `inference.training`.
"""
