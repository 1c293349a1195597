"""The demand model, served and asked as SageMaker does it. No Dagster.

What belongs here: the model (`model`), its server (`app`, `workers`: a SageMaker-compatible container), the client of a
SageMaker endpoint (`client`), the server as a child process (`embedded`), and the two computations around it over rows of
the lake (`demand`: which items are asked, and what comes back; `accuracy`: how good it was).
"""
