"""Whether an id was given to a row that is gone, also for a role that may not read the sequence."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.failures.models import Deploy
from flask_opsjobs.forensics.bundle import Inquiry
from flask_opsjobs.forensics.find import may_all
from flask_opsjobs.forensics.subjects.by_id import was_numbered
from tests.support.readings import reading_at

from .conftest import Story


def test_an_id_that_was_given_is_told_from_one_that_was_not(story: Story) -> None:
    host = story.bench.host
    insert = "INSERT INTO opsjobs.deploys (version, at, source) VALUES (%s, now(), 'command')"
    for version in ("1.0", "1.1", "1.2"):
        story.bench.connection.execute(insert, [version])
    story.bench.connection.execute("DELETE FROM opsjobs.deploys WHERE version <> '1.1'")

    def was(key: str, session: Session) -> bool:
        inquiry = Inquiry(host, reading_at(session, story.now), f"deploy/{key}", key, may_all)
        return was_numbered(inquiry, Deploy.id)

    with Session(host.engine) as session:
        assert [was(key, session) for key in "1234"] == [True, True, True, False]
        # Such a role knows only of the rows that are stored.
        for statement in (
            "CREATE ROLE forensics_reader",
            "GRANT USAGE ON SCHEMA opsjobs TO forensics_reader",
            "GRANT SELECT ON opsjobs.deploys TO forensics_reader",
            "SET LOCAL ROLE forensics_reader",
        ):
            session.execute(text(statement))
        assert [was(key, session) for key in "1234"] == [True, True, False, False]
        session.rollback()
