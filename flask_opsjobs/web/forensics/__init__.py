"""Shows what is known of any subject: a picker, one page per subject, and its exports."""
