-- Lists the names of the workers that are alive, also of plain RQ workers. Locks nothing.
-- Run by `flask opsjobs restore --after-postgres`. Index: workers_alive.
SELECT a.name FROM {alive_workers.sql} AS a ORDER BY a.name
