-- Finds the version of the schema. Locks nothing.
-- Run by core/db.py, once for each connection. It reads a handful of rows.
SELECT max(version) FROM opsjobs.schema_version
