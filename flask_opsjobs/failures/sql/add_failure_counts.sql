-- Adds attempts to the minutes, hours and deploys of their failures; %(counts)s has one row for each failure,
-- minute and deploy.
-- Run by the roll_up loop, which has locked the failures. Indexes: failure_minutes_pkey, failure_hours_pkey,
-- failure_deploys_pkey.
WITH given AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(counts)s::jsonb) AS g(failure_id bigint, minute timestamptz,
        deploy_id bigint, number bigint, first_at timestamptz, last_at timestamptz)
), minutes AS (
    INSERT INTO opsjobs.failure_minutes AS m (failure_id, minute, number)
    SELECT failure_id, minute, sum(number) FROM given GROUP BY 1, 2
    ON CONFLICT (failure_id, minute) DO UPDATE SET number = m.number + excluded.number
), hours AS (
    INSERT INTO opsjobs.failure_hours AS h (failure_id, hour, number)
    SELECT failure_id, date_trunc('hour', minute, 'UTC'), sum(number) FROM given GROUP BY 1, 2
    ON CONFLICT (failure_id, hour) DO UPDATE SET number = h.number + excluded.number
)
INSERT INTO opsjobs.failure_deploys AS d (failure_id, deploy_id, number, first_at, last_at)
SELECT failure_id, deploy_id, sum(number), min(first_at), max(last_at) FROM given GROUP BY 1, 2
ON CONFLICT (failure_id, deploy_id) DO UPDATE SET number = d.number + excluded.number,
    first_at = least(d.first_at, excluded.first_at), last_at = greatest(d.last_at, excluded.last_at)
