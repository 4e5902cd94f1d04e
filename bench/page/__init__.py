"""The report: records to one HTML file that needs nothing else, charts included."""
