"""The ``snr`` command, one file per group of subcommands.

Each group adds its subcommands with ``set_defaults(do=...)``, a function of the options that returns the exit status.
What is slow to import (numpy, pandas, torch) is imported where a subcommand needs it: `snr list` waits for none.
"""
