"""Fit the latent routing of `models.latent_routing` by SVI, with and without a capacity, and show what came out.

`python -m inference.latent_routing` trains every estimator from the same starting points on the same splits of the
digits, prints a table, and leaves in the folder of `--out`: `latent_routing.json`, three pictures, and what was fitted
in `latent_routing_fits/`. `--resume` takes from there what an interrupted run had finished.
"""

from inference.latent_routing._program import main

__all__ = ["main"]
