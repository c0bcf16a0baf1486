-- Finds the table of ours with the most dead rows, and how many transactions old the oldest row of the
-- database may be. Postgres counts dead rows itself, about each second.
-- Run by the doctor, read-only.
SELECT relname::text AS "table", n_dead_tup AS dead, n_live_tup AS live,
    (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()) AS age
FROM pg_stat_user_tables WHERE schemaname = 'opsjobs'
ORDER BY n_dead_tup DESC, relname LIMIT 1
