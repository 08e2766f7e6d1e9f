"""`python -m gumbel_moe`: the command line."""

import sys

from gumbel_moe.cli import main

if __name__ == "__main__":
    sys.exit(main())
