"""`python -m inference.latent_routing`."""

import sys

from inference.latent_routing import main

sys.exit(main())
