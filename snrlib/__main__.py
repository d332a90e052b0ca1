"""``python -m snrlib`` is the ``snr`` command."""

import sys

from snrlib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
