-- Lists the next rows of the audit's chain, oldest first, each with its columns as JSON in the form of its
-- canonical text. Times are formatted here, so that the time zone and styles of the session change nothing.
-- Run to verify, in batches. Locks nothing. Index: audit_events_pkey.
SELECT sequence,
    jsonb_build_object(
        'sequence', sequence, 'key_id', key_id,
        'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        'actor', actor, 'via', via, 'action', action, 'subject', subject, 'targets', targets,
        'outcome', outcome, 'code', code, 'permission', permission, 'reason', reason,
        'request_id', request_id, 'preview_id', preview_id,
        'previewed_at', to_char(previewed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        'before', before, 'after', after
    )::text AS columns,
    canonical, key_id, previous_hash, hash
FROM opsjobs.audit_events WHERE sequence > %(after)s ORDER BY sequence LIMIT %(limit)s
