"""Gathers what is known of a subject, such as a job or a queue, into a bundle, and says what is not."""
