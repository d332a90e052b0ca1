"""The ``snr`` command, one file a group of subcommands."""
