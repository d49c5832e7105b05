"""`privnet import`: the declaration and the lock file again, from the hosts alone, for who has lost the repository.

Each host remembers its part in ``/etc/privnet/record.json`` (``privnet.plan.record``). ``ask`` gets it over SSH,
``answer`` reads it strictly (a host may say anything), ``merge`` puts the parts together and says where they disagree,
``write`` makes the directory, after the ordinary compiler has accepted it.
"""
