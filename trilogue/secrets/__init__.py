"""Secrets from where an operator keeps them: Vault."""
