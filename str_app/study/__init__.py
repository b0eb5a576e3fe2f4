"""The paper's studies, and pictures of what gates do."""
