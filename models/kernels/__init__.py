"""Fast paths of the recurrent layers and the convolutions."""
