"""The report: one offline HTML file about a study, without scripts.

It owns the page, its charts, and the wording of claims and evidence.
It leaves reading the study to `lab.study`, and writing the file to `lab.report`.
"""
