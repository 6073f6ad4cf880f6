"""Language models: the gateway that calls them, and what goes in and comes out."""
