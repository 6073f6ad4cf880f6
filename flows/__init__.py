"""The DAGs; each reads on one screen."""
