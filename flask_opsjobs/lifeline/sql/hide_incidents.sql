-- Notes that active incidents of some classes follow from one that was found later and began no later.
-- SKIP LOCKED: another pass holds the incident, and finds its cause when it opens one again.
-- Run by a detecting pass that opens an incident which hides others. Index: incidents_active.
WITH followers AS MATERIALIZED (
    SELECT f.id FROM opsjobs.incidents f JOIN opsjobs.incidents cause ON cause.id = %(cause)s
    WHERE f.class = ANY (%(classes)s::text[]) AND f.state <> 'resolved' AND f.because_of IS NULL
        AND f.opened_at >= cause.opened_at AND f.id <> cause.id
    ORDER BY f.fingerprint FOR UPDATE OF f SKIP LOCKED
)
UPDATE opsjobs.incidents i SET because_of = %(cause)s FROM followers f WHERE i.id = f.id
