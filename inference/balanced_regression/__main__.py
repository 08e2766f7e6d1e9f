"""`python -m inference.balanced_regression`."""

from inference.balanced_regression import main

raise SystemExit(main())
