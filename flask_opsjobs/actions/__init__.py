"""Plans, previews, executes and audits what an operator may do."""
