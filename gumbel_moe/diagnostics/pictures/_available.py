"""Imported before anything that imports matplotlib, so that its absence is one clear line."""

from gumbel_moe._needs import need

need("matplotlib", "a picture")
