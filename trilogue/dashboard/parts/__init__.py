"""The parts of a pipeline's page: what each shows of a scene. Pure functions; their templates say how."""
