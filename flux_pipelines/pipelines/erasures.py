"""People who ask to be forgotten: a run of its own takes what is theirs out of the lake, history included.

Whose data it is stands in the body of the event, in the inbox, and never in a run's configuration, tags or log.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of op functions as objects.

import dagster as dg

from flux_pipelines.pipelines import names
from flux_pipelines.pipelines.resources import FluxResource
from flux_pipelines.pipelines.touched import NOBODY
from flux_pipelines.providers.registry import provider as provider_named


def forget_request(connection: str, *, run_key: str, tags: dict[str, str]) -> dg.RunRequest:
    """Return the request to carry out what the events of a batch ask to be forgotten.

    Args:
        connection: the connection's key.
        run_key: keeps Dagster from making the same run twice.
        tags: further tags, the batch's name among them.

    """
    return dg.RunRequest(
        run_key=run_key,
        job_name=names.FORGET_JOB,
        # In the queue of the connection's syncs: nothing may be written while it is looked through.
        tags={names.CONNECTION_TAG: connection, names.QUEUE_TAG: connection, **tags},
    )


@dg.op(
    name="forget_people",
    description="Takes out of the lake what people have asked to be forgotten, as the events of this run's batch say.",
)
def _forget(context: dg.OpExecutionContext, flux: FluxResource) -> None:
    from flux_pipelines.erasure import erase

    runtime = flux.runtime
    connection = runtime.state.connections.get(context.run.tags[names.CONNECTION_TAG])
    webhooks = runtime.webhooks(provider_named(connection.provider))
    events = runtime.state.inbox.in_batch(context.run.tags[names.BATCH_TAG])
    # Nobody is asked: the account may have been disconnected long ago.
    answers = webhooks.affected([(event.event_type, event.body) for event in events], NOBODY)
    asked = [affected.erase for affected in answers if affected.erase is not None]
    for one in asked:
        erase(runtime, connection, one, asked_by="webhook")
    context.log.info(f"{len(asked)} requests of {connection.key} carried out")
    context.add_output_metadata({"requests carried out": len(asked)})


def forget_job() -> dg.JobDefinition:
    """Return the job that carries out requests to be forgotten."""

    @dg.job(
        name=names.FORGET_JOB,
        description="Take out of the lake, history included, what people have asked to be forgotten.",
        executor_def=dg.in_process_executor,
    )
    def forget_people_asked() -> None:
        _forget()

    return forget_people_asked
