"""What the site needs besides its pages: MathJax, copied from an installed package, so that nothing is loaded from
another host. MkDocs calls `on_files` (`hooks` in `mkdocs.yml`).
"""

import hashlib
from importlib.metadata import files
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

# One file, with the shapes of all letters in it: it asks for no fonts.
_PACKAGE, _NAME = "django-static-mathjax", "tex-svg.js"
_SHA256 = "2af9375000b5a3669be94d436ae1c61159855283cd18b3ee9817fb71c8f94c84"


def _mathjax() -> Path:
    """The file in the package, which has to be the one that the pages were looked at with."""
    (found,) = (file for file in files(_PACKAGE) or () if file.parts[-2:] == ("es5", _NAME))
    path = Path(str(found.locate()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise PluginError(f"{_NAME} of {_PACKAGE} has the SHA-256 {digest}, not {_SHA256}")
    return path


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds MathJax to the site."""
    files.append(File.generated(config, f"javascripts/{_NAME}", abs_src_path=str(_mathjax())))
    return files
