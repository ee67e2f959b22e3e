"""From a loaded model to answers: weights by name, decoding, and the predictor that joins them."""
