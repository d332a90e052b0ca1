"""Notebooks as programs: found, run with parameters, checked, renewed."""

from __future__ import annotations

import sys
from typing import Any

# nbformat imports jsonschema, which would build a grammar of international addresses, over a second at every start. No
# notebook holds one. Where jsonschema does not find the package of that grammar, it leaves this one check out.
_modules: dict[str, Any] = sys.modules
if _absent := "rfc3987_syntax" not in _modules:
    _modules["rfc3987_syntax"] = None
import jsonschema as jsonschema  # noqa: E402

if _absent:
    del _modules["rfc3987_syntax"]
