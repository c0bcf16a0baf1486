-- Keeps a decision that cannot be appended to the audit now. No lock. Run by audit.append_or_keep.
INSERT INTO opsjobs.audit_pending (decided_at, decision) VALUES (%(decided_at)s, %(decision)s::jsonb)
