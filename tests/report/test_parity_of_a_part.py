from tsugiki.report.sections.vocabulary import transformers_proof

WHOLE = {"max_abs_difference": 1e-6, "tolerance": 1e-4, "positions": 64, "layers": 4, "all_layers": 4}


def test_proof_of_some_layers_says_how_many():
    (whole,), (part,) = transformers_proof(WHOLE), transformers_proof(WHOLE | {"layers": 2})
    assert "layers" not in str(whole)
    assert "the first 2 of 4 layers" in str(part)


def test_proof_of_a_manifest_that_counts_no_layers_is_of_the_whole():
    older = {name: value for name, value in WHOLE.items() if "layers" not in name}
    assert transformers_proof(older) == transformers_proof(WHOLE)
