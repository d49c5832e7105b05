"""`privnet new …`: valid documents with fresh identifiers, and entries in documents that people wrote.

Nothing is ever overwritten. What is changed is text put in at one place of a file, so that comments and formatting
stay; the whole fleet is compiled with the change before it is written.
"""

from __future__ import annotations


class NotWritten(Exception):
    """Nothing was written. The message says why, and what to do."""
