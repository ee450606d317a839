"""dnsblock: carries out DNS blocking orders in front of recursive resolvers.

`daemon.py` is the operator's story, read top to bottom; `orders/` is what was ordered, `policy/` what is
enforced.
"""

from typing import Any

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    """The version is the engine's, which is loaded only when somebody wants to know: see `start.py`."""
    if name == "__version__":
        from dnsblock._engine import __version__

        return __version__
    raise AttributeError(name)
