"""Pictures from result files: what a person would rather look at than read."""
