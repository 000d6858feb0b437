"""The report: one offline HTML file about a study, which shows everything without scripts.

It owns the page, its charts and tables, the script that sorts and compares, and the doubts about the search.
It leaves the verdict's sentences to `lab.verdict`, reading the study to `lab.study`, and writing the file to
`lab.report`.
"""
