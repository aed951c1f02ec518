"""Test views of a head: from a store, or through the live backbone."""
