"""What makes training fast, safe and resumable: appendices B and C open it."""
