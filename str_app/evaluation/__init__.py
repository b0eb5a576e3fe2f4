"""How good a recogniser is: the field's protocol, tables and reports."""
