"""The report: one HTML file about a study, which opens offline and holds no script.

It owns the page, its charts and its wording of claims and evidence.
It leaves reading the study to `lab.study`, and where the file goes to `lab.report`.
"""
