"""Learn, test and reproduce deep metric learning with the SNR distance."""

from importlib.metadata import version

__version__ = version("snrlib")
