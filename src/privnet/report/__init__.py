"""What the command line says about a compiled fleet, as plain data first and as text second. Pure but for ``tree``."""
