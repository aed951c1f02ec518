"""The machine: devices, memory formats and free memory."""
