-- Finds the last decision that may have repaired an incident in its episode: an action that repairs its
-- class, and that names the incident, its subject or one of its targets, or the worker of which the loop
-- watch rescued jobs; among the newest 2,000 of these actions.
-- Run by the loop escalate, when an incident has ended of which somebody was told. Index: audit_by_action.
SELECT newest.action, newest.actor FROM (
    SELECT action, actor, at, targets, after, outcome FROM opsjobs.audit_events
    WHERE action = ANY (%(actions)s::text[]) ORDER BY sequence DESC LIMIT 2000
) AS newest
WHERE newest.outcome = 'done' AND newest.at BETWEEN %(opened_at)s AND %(resolved_at)s
  AND (newest.targets && %(targets)s::text[] OR EXISTS (
      SELECT FROM jsonb_path_query(newest.after, '$.*.name') AS name WHERE name #>> '{}' = %(worker)s))
ORDER BY newest.at DESC LIMIT 1
