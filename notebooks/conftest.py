"""nbval in this folder: what a notebook says on stderr (warnings, progress) is not compared."""

from nbval.plugin import IPyNbFile


def pytest_collectstart(collector: object) -> None:
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += ("stderr",)
