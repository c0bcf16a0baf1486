-- Gives back the places and tokens of attempts whose function was not called, by job and dispatch number.
-- Subtracts the tokens that were refilled since the claim: the bucket may have been full meanwhile, and a
-- token that did not fit into it must not be added later. Jobs are locked before buckets, buckets in the
-- order of their names.
-- Run by `endings`, in the transaction that ends the attempts. Indexes: leases_pkey, buckets_pkey.
WITH freed AS (
    DELETE FROM opsjobs.leases l
    USING unnest(%(job_ids)s::bigint[], %(dispatch_nos)s::bigint[]) AS n(job_id, dispatch_no)
    WHERE l.job_id = n.job_id AND l.dispatch_no = n.dispatch_no
    RETURNING l.limiter, l.partition, l.weight, l.taken_at
), owed AS MATERIALIZED (
    SELECT f.limiter, f.partition, count(*) AS starts,
        sum(greatest(0, f.weight - coalesce(l.rate / l.per_seconds, 0)
        * extract(epoch FROM greatest(%(now)s::timestamptz - f.taken_at, interval '0 s')))) AS tokens
    FROM freed f LEFT JOIN opsjobs.limiters l ON l.name = f.limiter GROUP BY f.limiter, f.partition
), locked AS MATERIALIZED (
    SELECT b.limiter, b.partition FROM opsjobs.buckets b JOIN owed USING (limiter, partition)
    ORDER BY b.limiter, b.partition FOR UPDATE OF b
), refilled AS (
    UPDATE opsjobs.buckets b SET tokens = b.tokens + owed.tokens, admitted = b.admitted - owed.starts
    FROM owed JOIN locked USING (limiter, partition)
    WHERE b.limiter = owed.limiter AND b.partition = owed.partition
)
INSERT INTO opsjobs.limit_count_deltas (at, limiter, admitted) SELECT taken_at, limiter, -1 FROM freed
