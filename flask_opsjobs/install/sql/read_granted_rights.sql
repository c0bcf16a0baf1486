-- Reads which rights on tables and sequences of ours are granted to a role itself.
-- Run by `make manifest`, read-only.
SELECT c.relname || ' ' || a.privilege_type FROM pg_class c CROSS JOIN aclexplode(c.relacl) AS a
WHERE c.relnamespace = 'opsjobs'::regnamespace AND a.grantee = %(role)s::text::regrole
ORDER BY 1
