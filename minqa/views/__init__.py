"""Results as coloured text, HTML, figures and JSON."""
