"""`python -m inference.balanced_regression`."""

import sys

from inference.balanced_regression import main

sys.exit(main())
