"""`python -m inference.latent_routing`."""

from inference.latent_routing import main

raise SystemExit(main())
