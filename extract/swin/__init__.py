"""SwinV2 blocks as frozen networks: windows, attention, position bias."""
