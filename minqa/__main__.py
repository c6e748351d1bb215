"""`python -m minqa` is the command line."""

from minqa.app.cli import main

raise SystemExit(main())
