-- Lists the queues that have totals of their own, and '' when there are others.
-- Run by the roll_up loop. At most 201 rows.
SELECT queue FROM opsjobs.queue_totals
