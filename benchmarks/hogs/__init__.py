"""Small urgent requests beside single large ones of less urgent work."""
