"""What a notebook shows and keeps: tables, figures, numbers, sentences, widgets."""
