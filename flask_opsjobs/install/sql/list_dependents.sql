-- Lists the foreign keys and views of the host, outside of our schema, that need a table in it. DROP SCHEMA
-- with CASCADE drops them too. Locks nothing.
-- Run by `flask opsjobs uninstall`. Reads Postgres' catalogs only.
SELECT 'the foreign key ' || c.conname || ' of ' || c.conrelid::regclass
FROM pg_constraint c
JOIN pg_class t ON t.oid = c.confrelid
WHERE c.contype = 'f' AND t.relnamespace = to_regnamespace('opsjobs') AND c.connamespace <> t.relnamespace
UNION
SELECT 'the view ' || r.ev_class::regclass
FROM pg_depend d
JOIN pg_rewrite r ON r.oid = d.objid
JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_class t ON t.oid = d.refobjid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
    AND t.relnamespace = to_regnamespace('opsjobs') AND v.relnamespace <> t.relnamespace
ORDER BY 1
