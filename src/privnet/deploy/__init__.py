"""The rim that changes hosts, and the only place that imports pyinfra.

Pure inside: ``state`` (what a host answered), ``changes`` (what it takes to get from there to its plan) and
``script`` (one upload with one program). pyinfra around it: ``facts``, ``operations``, ``stages``, ``inventory``,
``run``. ``connection`` bounds what a host sends before pyinfra reads it.
"""
