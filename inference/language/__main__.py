"""`python -m inference.language`."""

from inference.language import main

raise SystemExit(main())
