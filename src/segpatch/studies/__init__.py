"""The questions: each a short file that composes procedures and records into a run directory."""
