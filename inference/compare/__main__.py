"""`python -m inference.compare`."""

import sys

from inference.compare import main

sys.exit(main())
