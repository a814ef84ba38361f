"""Mean over tokens."""
