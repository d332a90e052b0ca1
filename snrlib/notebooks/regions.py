"""The parts of a code cell that nbgrader's own comments mark: what a student is to write, and what is tested besides.

A region begins with ``### BEGIN SOLUTION`` or ``### BEGIN HIDDEN TESTS`` and ends with its own ``### END``. The stored
notebook holds both and runs; copies (`snrlib.teach`) and pages (`snrlib.report`) leave out or fold what spoils the
exercise.
"""

from __future__ import annotations

import re
from textwrap import dedent

__all__ = ["solution", "without_hidden", "without_solution"]

_SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION", re.MULTILINE | re.DOTALL)
_STUB = 'raise NotImplementedError("write your answer in place of this line")'
_HIDDEN = re.compile(r"^ *### BEGIN HIDDEN TESTS\n.*?^ *### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"^ *### (?:BEGIN|END)\b.*$", re.MULTILINE)


def without_solution(code: str) -> str:
    r"""A cell as a student gets it: a stub that raises NotImplementedError in a function, nothing at the outer level.

    Raises:
        ValueError: a region that does not end, or has another name.

    >>> without_solution("x = None  # a number\n### BEGIN SOLUTION\nx = 3\n### END SOLUTION")
    'x = None  # a number'
    """
    return _clean(_SOLUTION.sub(lambda region: region[1] and f"{region[1]}{_STUB}", code).rstrip())


def solution(code: str) -> str:
    r"""What `without_solution` takes out; nothing if there is no such region.

    >>> solution("x = None  # a number\n### BEGIN SOLUTION\nx = 3\n### END SOLUTION")
    'x = 3'
    """
    return "\n".join(dedent(region[2]).rstrip() for region in _SOLUTION.finditer(code))


def without_hidden(code: str) -> str:
    """A check as a student gets it, without its hidden tests.

    Raises:
        ValueError: a region that does not end, or has another name.
    """
    return _clean(_HIDDEN.sub("", code))


def _clean(code: str) -> str:
    stripped = _HIDDEN.sub("", _SOLUTION.sub("", code))
    if left := _MARK.search(stripped):
        raise ValueError(
            f"{left[0].strip()!r} begins or ends no region: SOLUTION and HIDDEN TESTS do, each with its own END"
        )
    return code
