from privnet.deploy.inventory import groups as _groups

globals().update(_groups())
