"""Post-training quantisation: canonical float graph + calibration → integer graph."""
