"""Run the command line: `python -m dprlens`."""

import sys

from dprlens.cli import main

sys.exit(main())
