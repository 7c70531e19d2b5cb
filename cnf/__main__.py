"""`python -m cnf`: the command line."""

import sys

from cnf.cli import main

sys.exit(main())
