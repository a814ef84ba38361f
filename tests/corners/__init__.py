"""Elaboration and lint of architectures at the edges of what ArchConfig allows."""
