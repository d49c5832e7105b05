"""What of this directory is part of every test run: two operators at once.

The matrix of :mod:`test_kill_anywhere` runs with ``PRIVNET_FAULTS=some``, or ``all``, until it finds nothing any more.
"""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("PRIVNET_FAULTS") else ["test_kill_anywhere.py"]
