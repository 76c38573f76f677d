"""Several objects that answer one service together, each with methods of its own; a servicer that would be too long.

What answers which method is read once, when the server starts (`sysproc.server.access`).
"""


class Joined:
    """The methods of all of them."""

    def __init__(self, *parts: object) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> object:
        for part in self._parts:
            if hasattr(part, name):
                return getattr(part, name)
        raise AttributeError(name)
