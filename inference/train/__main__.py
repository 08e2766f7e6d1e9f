"""`python -m inference.train`."""

import sys

from inference.train import main

sys.exit(main())
