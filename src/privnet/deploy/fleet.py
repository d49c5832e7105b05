"""pyinfra's inventory for ``privnet deploy``: the fleet whose directory ``PRIVNET_INVENTORY`` names.

Read by pyinfra, as ``inventory/prod.py`` is.
"""

import os as _os
from pathlib import Path as _Path

from privnet.deploy.inventory import fleet_groups as _fleet_groups

globals().update(_fleet_groups(_Path(_os.environ["PRIVNET_INVENTORY"])))
