"""Schema version 7: a trigger deletes the attempts of deleted jobs, so that no foreign key is checked."""

from __future__ import annotations

from typing import Any

# A check for each attempt cost as much as all else of its insert. An attempt is inserted only by a statement
# that has locked its job, so the check never failed.
WITHOUT_KEY = (
    "ALTER TABLE opsjobs.attempts DROP CONSTRAINT attempts_job_id_fkey",
    """
    CREATE FUNCTION opsjobs.delete_attempts_of_deleted_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM opsjobs.attempts a USING deleted d WHERE a.job_id = d.id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER jobs_delete_attempts AFTER DELETE ON opsjobs.jobs REFERENCING OLD TABLE AS deleted
        FOR EACH STATEMENT EXECUTE FUNCTION opsjobs.delete_attempts_of_deleted_jobs()
    """,
)

WITH_KEY = (
    "DROP TRIGGER jobs_delete_attempts ON opsjobs.jobs",
    "DROP FUNCTION opsjobs.delete_attempts_of_deleted_jobs()",
    """
    ALTER TABLE opsjobs.attempts ADD CONSTRAINT attempts_job_id_fkey FOREIGN KEY (job_id)
        REFERENCES opsjobs.jobs (id) ON DELETE CASCADE
    """,
)

# The trigger finds attempts by their primary key.
INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Replace the foreign key by the trigger."""
    for statement in WITHOUT_KEY:
        op.execute(statement)


def downgrade(op: Any) -> None:
    """Replace the trigger by the foreign key."""
    for statement in WITH_KEY:
        op.execute(statement)
