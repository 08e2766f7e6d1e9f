"""`python -m inference.train`."""

from inference.train import main

raise SystemExit(main())
