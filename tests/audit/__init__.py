"""For operators, who have a fleet; and a package, so that its conftest has a name of its own."""
