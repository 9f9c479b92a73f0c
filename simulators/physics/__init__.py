"""How each class of equipment behaves: seeded, deterministic, all units of a class at once in arrays."""
