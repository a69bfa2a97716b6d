"""Tables, pages, figures and statistics, whatever they show."""
