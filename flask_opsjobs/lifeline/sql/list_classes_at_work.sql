-- Lists the classes that have an incident which is not resolved, or a finding that is none yet. A loose index
-- scan: one probe for each class; the pending findings are few, and read whole.
-- Run at the beginning of each pass of the loop detect. Index: incidents_active.
WITH RECURSIVE active (class) AS (
    (SELECT class FROM opsjobs.incidents WHERE state <> 'resolved' ORDER BY class LIMIT 1)
    UNION ALL
    SELECT (SELECT i.class FROM opsjobs.incidents i
            WHERE i.state <> 'resolved' AND i.class > active.class ORDER BY i.class LIMIT 1)
    FROM active
    WHERE active.class IS NOT NULL
)
SELECT class FROM active WHERE class IS NOT NULL
UNION
SELECT class FROM opsjobs.pending_findings
