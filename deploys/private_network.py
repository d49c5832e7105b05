from privnet.deploy.stages import private_network

private_network()
