"""dnsblock: carries out DNS blocking orders in front of recursive resolvers.

`daemon.py` is the operator's story, read top to bottom; `orders/` is what was ordered, `policy/` what is
enforced.
"""

from dnsblock._engine import __version__

__all__ = ["__version__"]
