-- Adds the next %(limit)s decisions of the audit to the totals of their actions, and moves the position of
-- the counted ones. Returns how many they were. Decisions are numbered without gaps, in the order of their
-- commits, so each is added once.
-- Run by the roll_up loop. Indexes: audit_events_pkey, audit_head_pkey, rollup_position_pkey,
-- action_totals_pkey.
WITH events AS MATERIALIZED (
    SELECT sequence, action, outcome FROM opsjobs.audit_events
    WHERE sequence > (SELECT audit_sequence FROM opsjobs.rollup_position WHERE id = 1)
        AND sequence <= (SELECT sequence FROM opsjobs.audit_head WHERE id = 1)
    ORDER BY sequence LIMIT %(limit)s
), added AS (
    INSERT INTO opsjobs.action_totals AS t (action, outcome, decisions)
    SELECT action, outcome, count(*) FROM events GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (action, outcome) DO UPDATE SET decisions = t.decisions + excluded.decisions
), moved AS (
    UPDATE opsjobs.rollup_position SET audit_sequence = (SELECT max(sequence) FROM events)
    WHERE id = 1 AND EXISTS (SELECT FROM events)
)
SELECT count(*) FROM events
