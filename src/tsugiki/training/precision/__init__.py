"""What matrix products are computed in: bfloat16, and float8 recipes with their supervision."""
