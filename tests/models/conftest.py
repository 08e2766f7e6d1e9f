"""The shapes in the models' signatures are checked while they are tested."""

from jaxtyping import install_import_hook

with install_import_hook("models", "beartype.beartype"):
    import models.balanced_regression
    import models.digits
    import models.latent_routing
    import models.layers
    import models.toy
    import models.transformer  # noqa: F401
