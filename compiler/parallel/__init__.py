"""Tensor parallel: one model's large weights split over processes that run it together."""
