-- Lists the newest notes on a subject, such as job/42: rows of the audit's chain whose reason is the text.
-- Run by pages and forensics. Locks nothing. Index: audit_notes.
SELECT sequence, at, actor, reason AS text
FROM opsjobs.audit_events
WHERE targets[1] = %(subject)s AND action = 'note.add' AND outcome = 'done'
    AND sequence <= coalesce((SELECT sequence FROM opsjobs.audit_head WHERE id = 1), 9223372036854775807)
ORDER BY sequence DESC LIMIT %(limit)s
