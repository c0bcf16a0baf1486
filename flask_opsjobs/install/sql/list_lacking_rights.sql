-- Lists the rights that the current role lacks, of those that it needs, each on a table or a sequence of
-- ours.
-- Run by the doctor, read-only.
SELECT format('%%s ON opsjobs.%%s', needed.privilege, needed.name)
FROM unnest(%(names)s::text[], %(rights)s::text[]) AS needed (name, privilege)
JOIN pg_class c ON c.relnamespace = 'opsjobs'::regnamespace AND c.relname = needed.name
WHERE NOT has_schema_privilege('opsjobs', 'USAGE')
    OR NOT CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, needed.privilege)
        ELSE has_table_privilege(c.oid, needed.privilege) END
ORDER BY 1
