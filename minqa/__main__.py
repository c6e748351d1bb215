"""`python -m minqa` is the command line."""

import sys

if __name__ == "__main__":
    from minqa.app.cli import main

    sys.exit(main())
