"""Lists the detectors: one file for each class of incidents."""

from collections.abc import Mapping

from ..finding import Detector, Words
from . import (
    audit_broken,
    batch_overdue,
    callback_failed,
    code_missing,
    cron_missed,
    delivery_lost,
    escalation_failed,
    failure_new,
    failure_regressed,
    held_by_nobody,
    integrity_off,
    lane_starving,
    lease_leaked,
    loop_failing,
    loop_silent,
    operation_stopped,
    orphan_delivery,
    poison,
    postgres_away,
    queue_unserved,
    redis_away,
    redis_lost,
    retry_storm,
    rq_dependents_stuck,
    rq_orphan,
    wait_overdue,
    worker_missing,
    workflow_stuck,
)

# By class, in the order of their names: a pass locks incidents in this order.
DETECTORS: Mapping[str, Detector] = {
    detector.class_: detector
    for detector in sorted(
        (
            audit_broken.DETECTOR,
            batch_overdue.DETECTOR,
            callback_failed.DETECTOR,
            code_missing.DETECTOR,
            cron_missed.DETECTOR,
            delivery_lost.DETECTOR,
            escalation_failed.DETECTOR,
            failure_new.DETECTOR,
            failure_regressed.DETECTOR,
            held_by_nobody.DETECTOR,
            integrity_off.DETECTOR,
            lane_starving.DETECTOR,
            lease_leaked.DETECTOR,
            loop_failing.DETECTOR,
            loop_silent.DETECTOR,
            operation_stopped.DETECTOR,
            orphan_delivery.DETECTOR,
            poison.DETECTOR,
            postgres_away.DETECTOR,
            queue_unserved.DETECTOR,
            redis_away.DETECTOR,
            redis_lost.DETECTOR,
            retry_storm.DETECTOR,
            rq_dependents_stuck.DETECTOR,
            rq_orphan.DETECTOR,
            wait_overdue.DETECTOR,
            worker_missing.DETECTOR,
            workflow_stuck.DETECTOR,
        ),
        key=lambda detector: detector.class_,
    )
}


def detector_of(class_: str) -> Detector:
    """The detector of a class.

    For a class that this version does not know, as after a downgrade, one that says so and looks for nothing.
    """
    return DETECTORS.get(class_) or Detector(
        class_=class_,
        title=class_.replace("_", " ").capitalize(),
        severity="warning",
        found_when="another version of flask-opsjobs found it; this one does not know the class",
        near_miss="",
        say=lambda _facts: _say_undeclared(class_),
        affects=("thing", "things"),
    )


def _say_undeclared(class_: str) -> Words:
    return Words(
        title=f"Another version found an incident of the class {class_}",
        why="This version of flask-opsjobs does not know the class: it neither looks for it nor clears it.",
        next_step="Read its evidence. Resolve it, or deploy the version that knows the class.",
    )
