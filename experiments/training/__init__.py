"""Train networks with the defenses, by the recipes of the papers and our own."""
