"""How `make lab` lets a reader in: by a token or a password, whatever else Jupyter's settings say."""

from __future__ import annotations

import secrets
from typing import Any

from jupyter_server.auth.identity import PasswordIdentityProvider
from traitlets import validate

__all__ = ["SignIn"]


class SignIn(PasswordIdentityProvider):
    """Jupyter's own sign-in, except that the token cannot be switched off.

    Many a tutorial advises ``c.ServerApp.token = ""``, which lets every program and every user of the machine run code
    in a notebook. Such a setting, wherever it stands, is answered with a new random token, as if there were none. A
    password, which protects as well, is kept.
    """

    @validate("token")
    def _never_empty(self, proposal: Any) -> str:
        if proposal["value"] or self.hashed_password:
            return proposal["value"]
        self.token_generated = True  # so that it is shown
        return secrets.token_hex(24)
