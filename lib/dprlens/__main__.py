import sys

from dprlens.cli import main

sys.exit(main())
