"""The API for other programs, at /api/v1: subscribers, events, enrollments and reports, each with a scoped key."""
