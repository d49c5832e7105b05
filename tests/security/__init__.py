"""Isolation and encryption, proven against an attacker: see docs/security.md."""
