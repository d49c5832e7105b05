"""pyinfra's deploy for ``privnet deploy``: what ``deploys/private_network.py`` is in a clone. Read by pyinfra."""

from privnet.deploy.stages import private_network

private_network()
