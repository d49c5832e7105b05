"""From declaration and lock file to what every host is to be. Pure: no clock, no network, no file.

One module a feature, in the order in which a packet meets them: ``containers``, ``overlay``, ``guard``, ``mesh``,
``names``; ``host`` puts them together, ``allocate`` gives the numbers first.
"""
