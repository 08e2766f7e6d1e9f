"""`python -m inference.compare`."""

from inference.compare import main

raise SystemExit(main())
