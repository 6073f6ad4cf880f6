"""How flow runs and their pipelines find each other's names."""

from prefect import runtime

from trilogue.pipeline import pipeline_id_for


def pipeline_of_this_run(given: str | None) -> str:
    """The id of the pipeline that this flow run carries: the one given, else one that follows from the run's id."""
    return given or pipeline_id_for(str(runtime.flow_run.id))


def run_name() -> str:
    """A flow run is named after its pipeline."""
    parameters = runtime.flow_run.parameters or {}
    return pipeline_of_this_run(parameters.get("pipeline_id"))
