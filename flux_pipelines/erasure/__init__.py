"""Forgetting a person: what the lake and the state hold of them is erased, history included; the books stay as they are."""
