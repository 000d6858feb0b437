"""The report on a study: one HTML file that opens offline, for people to judge the result by."""
