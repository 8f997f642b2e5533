"""The simulator held against queueing theory and against simulators that move single requests.

It imports `evaluation` and, for its figure, `reporting`.
"""
