"""The whole line under random kills and cuts, and a judge that trusts none of its parts."""
